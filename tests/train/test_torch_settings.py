"""A run trains with subnormal numbers as zeros, and leaves the process as it found it."""

from __future__ import annotations

import torch

from sdas.train import train
from sdas.train.torch_settings import torch_settings
from sdas_kernels.nn import SDAS


def computes_with_subnormals():
    return bool((torch.full((1,), 1e-40) * 1).any())


def test_settings_are_put_back(make_config):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings = make_config(threads=before[0] + 1, deterministic=True).train
    with torch_settings(settings):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
        assert not computes_with_subnormals()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert computes_with_subnormals()


def test_the_model_trains_with_them_as_zeros(make_config, monkeypatch):
    forward, seen = SDAS.forward, []

    def watched(*given, **options):
        seen.append(computes_with_subnormals())
        return forward(*given, **options)

    monkeypatch.setattr(SDAS, "forward", watched)
    train(make_config(steps=2))
    assert seen
    assert not any(seen)
    assert computes_with_subnormals()
