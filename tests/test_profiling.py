"""Ranges: one for each run of an operator, in PyTorch's profiler and in Nsight; none when off."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels import dispatch, profiling

STEPS = ("forward", "backward", "double_backward")


def run_ladder():
    vectors = torch.randn(5, 3, requires_grad=True)
    (first,) = torch.autograd.grad(sk.spherical_harmonics(vectors, 2).square().sum(), vectors, create_graph=True)
    first.square().sum().backward()
    return vectors.grad


def seen(run):
    with torch.profiler.profile() as profiler:
        run()
    return {event.key for event in profiler.key_averages() if event.key.startswith("sdas_kernels.")}


def test_the_profiler_sees_every_step_by_its_backend():
    backend = dispatch.backend_name("spherical_harmonics", "cpu", torch.float32)
    with profiling.ranges():
        assert seen(run_ladder) == {f"sdas_kernels.spherical_harmonics.{step} ({backend})" for step in STEPS}
    assert seen(run_ladder) == set()


def test_nsight_is_told_when_a_range_begins_and_ends(monkeypatch):
    told = []
    stub = SimpleNamespace(push_range=told.append, pop_range=lambda: told.append("end"))
    monkeypatch.setitem(sys.modules, "nvtx", stub)
    profiling._nvtx.cache_clear()
    with profiling.ranges(), dispatch.use_backend("reference"):
        sk.spherical_harmonics(torch.randn(5, 3), 1)
        with pytest.raises(KeyError):
            dispatch.kernels("spherical_harmonics", torch.zeros(1)).forward(torch.zeros(2, 3), 1, True, "unknown")
    profiling._nvtx.cache_clear()
    assert told == ["sdas_kernels.spherical_harmonics.forward (reference)", "end"] * 2


def test_a_gpu_without_the_package_is_served_by_pytorch(monkeypatch):
    told = []
    monkeypatch.setitem(sys.modules, "nvtx", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", told.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: told.append("end"))
    profiling._nvtx.cache_clear()
    with profiling.ranges(), dispatch.use_backend("reference"):
        sk.spherical_harmonics(torch.randn(5, 3), 1)
    profiling._nvtx.cache_clear()
    assert told == ["sdas_kernels.spherical_harmonics.forward (reference)", "end"]


def test_off_there_is_nothing_between_an_operator_and_its_kernels():
    tensor = torch.zeros(1)
    assert isinstance(dispatch.kernels("spherical_harmonics", tensor), type(sys))
    with profiling.ranges():
        assert not isinstance(dispatch.kernels("spherical_harmonics", tensor), type(sys))
    assert isinstance(dispatch.kernels("spherical_harmonics", tensor), type(sys))


def test_results_are_the_same():
    torch.manual_seed(1)
    without = run_ladder()
    torch.manual_seed(1)
    with profiling.ranges():
        assert torch.equal(run_ladder(), without)


@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("0", "False"), ("", "False")])
def test_the_environment_turns_them_on(value, expected):
    code = "import sdas_kernels; print(sdas_kernels.profiling.on)"
    environment = os.environ | {"SDAS_KERNELS_RANGES": value}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == expected
