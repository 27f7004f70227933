"""FLOPs of training steps by the affine model, against real counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sdas.data import write_cache
from sdas.train import train
from sdas.train.flop_model import FlopModel
from sdas_kernels.flops import FlopCounter


def step_of(atoms: int, edges: int, graphs: int) -> int:
    """A miniature of a training step: node, edge and graph work, force and loss gradients, counted."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 4))
    senders = torch.arange(edges) % atoms
    system = torch.arange(atoms) % graphs

    def run():
        r = torch.randn(atoms, 4, requires_grad=True)
        messages = torch.sin(r.index_select(0, senders) @ weight)
        nodes = torch.zeros(atoms, 4).index_add(0, senders, messages)
        energy = torch.zeros(graphs).index_add(0, system, (nodes @ weight).pow(2).sum(1))
        (force,) = torch.autograd.grad(energy.sum(), r, create_graph=True)
        (force.pow(2).mean() + energy.pow(2).mean()).backward()

    with FlopCounter() as counter:
        run()
    assert not counter.unknown
    return counter.total


def test_affine_model_predicts_what_is_counted():
    model = FlopModel()
    sizes = [(9, 72, 8), (10, 72, 8), (9, 80, 8), (9, 72, 5), (12, 30, 4), (7, 19, 3), (40, 1000, 6)]
    counted = 0
    for size in sizes:
        if model.needs_count(*size):
            model.record(*size, step_of(*size))
            counted += 1
    assert counted == 6
    for size in sizes:
        assert model.evaluate(*size) == step_of(*size)


def test_affine_model_needs_few_counts_when_sizes_hardly_vary():
    model = FlopModel()
    model.record(72, 576, 8, 10**9)  # with work that is done once
    for size in [(72, 576, 8), (72, 570, 8)]:
        assert model.needs_count(*size)
        model.record(*size, step_of(*size))
    assert model.needs_count(72, 560, 8)
    model.record(72, 560, 8, step_of(72, 560, 8))
    assert not model.needs_count(72, 500, 8)
    assert model.evaluate(72, 500, 8) == step_of(72, 500, 8)
    restored = FlopModel()
    restored.load_state_dict(model.state_dict())
    assert restored.evaluate(72, 500, 8) == model.evaluate(72, 500, 8)
    assert restored.needs_count(73, 500, 8)
    with pytest.raises(ValueError, match="must be counted"):
        restored.evaluate(73, 500, 8)


def test_affine_model_gives_up_loudly_on_work_that_is_not_affine():
    model = FlopModel()
    model.record(10, 10, 1, 100)
    model.record(10, 10, 1, 100)
    model.record(20, 20, 1, 400)
    with pytest.warns(UserWarning, match="affine"):
        model.record(30, 30, 1, 900)
    assert model.needs_count(10, 10, 1)
    model.record(40, 40, 1, 1600)
    assert model.needs_count(40, 40, 1)


def test_batches_with_and_without_periodic_frames_are_counted_each_by_its_function(
    tmp_path, make_config, molecules, recwarn
):
    """Shifts by cells take FLOPs of every edge of a batch, if one of its frames is periodic."""
    box = {"cell": 8.0 * np.eye(3), "pbc": np.ones(3, bool)}
    write_cache([replace(frame, **box) if k % 2 else frame for k, frame in enumerate(molecules(20))], tmp_path / "c")
    data = {"path": str(tmp_path / "c"), "split": {"sizes": [20, 0, 0]}}
    train(make_config(data=data, steps=20, batch_size=1))
    assert not [warning for warning in recwarn if "affine" in str(warning.message)]
