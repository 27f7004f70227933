"""Subnormal numbers are zeros to PyTorch's operators, on all their threads, where that is asked for and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sdas_kernels import native, subnormals

MANY = 2_000_000  # numbers that PyTorch shares out to all its threads


def zeros():
    """How many of many products that are subnormal numbers are zeros."""
    return int((torch.full((MANY,), 1e-30) * 1e-10 == 0).sum())


@pytest.fixture(params=[1, 2])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_on_every_thread_inside_and_on_none_after():
    if not native.available()[0]:
        pytest.skip(f"NO KERNELS, so threads that are there keep their setting: {native.available()[1]}")
    assert zeros() == 0  # and the threads exist
    with subnormals.as_zeros():
        assert zeros() == MANY
        with subnormals.as_zeros():
            assert zeros() == MANY
        assert zeros() == MANY
    assert zeros() == 0
    with pytest.raises(ZeroDivisionError), subnormals.as_zeros():
        raise ZeroDivisionError
    assert zeros() == 0


STARTED = """
import sys
import torch
from sdas_kernels import spherical_harmonics, subnormals

torch.set_num_threads(1 if sys.argv[1] == "inside" else 2)
zeros = lambda: int((torch.full(({MANY},), 1e-30) * 1e-10 == 0).sum())
if sys.argv[1] == "inside":
    with subnormals.as_zeros():
        torch.set_num_threads(2)
        assert zeros() == {MANY}
else:
    spherical_harmonics(torch.randn(100_000, 3), 4)
print(zeros())
""".replace("{MANY}", str(MANY))


@pytest.mark.parametrize("where", ["inside", "kernel"])
def test_threads_that_start_where_they_are_zeros_do_not_keep_it(where):
    """Threads inherit the setting of the one that starts them; a kernel may be what starts those of PyTorch."""
    if not native.available()[0]:
        pytest.skip(f"NO KERNELS: {native.available()[1]}")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-P", "-c", STARTED, where]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "0", result.stderr


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.usefixtures("without_native")
def test_without_kernels_on_the_calling_thread(before):
    torch.set_flush_denormal(before)
    try:
        with subnormals.as_zeros():
            assert not (torch.full((1,), 1e-40) * 1).any()
        assert (not (torch.full((1,), 1e-40) * 1).any()) == before
    finally:
        torch.set_flush_denormal(False)
