"""Subnormal numbers, those below 1e-38 in float32 and 1e-308 in float64, as zeros.

A processor takes a hundred times as long for one as for another number, and saturated softmax weights give many.
Compiled kernels always take them for zeros, and leave the setting of their caller as it was. PyTorch's own operators go
by the setting of each thread: `torch.set_flush_denormal` changes the calling one, and those that it starts later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdas_kernels import native


@contextmanager
def as_zeros() -> Iterator[None]:
    """Inside, they are zeros to PyTorch's operators too, on this thread and on the intra-op threads that serve it.

    Without compiled kernels, on this thread and on intra-op threads that start inside.
    """
    if not native.available()[0]:
        before = _are_zeros()
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(before)
        return
    extension = native.extension()
    controls = extension.controls(torch.get_num_threads())
    extension.set_controls([control | extension.subnormals_are_zeros for control in controls])
    try:
        yield
    finally:
        started = max(0, torch.get_num_threads() - len(controls))  # inside; they took over what this thread had there
        extension.set_controls([*controls, *controls[:1] * started])


def _are_zeros() -> bool:
    """Whether they are to this thread now."""
    smallest = sys.float_info.min
    return smallest / 2 == 0.0
