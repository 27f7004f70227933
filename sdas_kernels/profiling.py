"""Named ranges around operators, for profilers: one for each run of a forward, backward or double backward.

    with sdas_kernels.profiling.ranges():
        model(graph)

PyTorch's profiler shows them as `sdas_kernels.neighbor_attention.backward (triton)`; Nsight too, through the package
`nvtx` where it is installed, else through PyTorch where a GPU is there. SDAS_KERNELS_RANGES=1 in the environment turns
them on for a whole process. Off, as by default, they cost a look at a variable.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

on = os.environ.get("SDAS_KERNELS_RANGES", "0") not in ("", "0")


@contextmanager
def ranges() -> Iterator[None]:
    """Name every operator that runs inside the `with` block, in the whole process, backward passes included."""
    global on
    before, on = on, True
    try:
        yield
    finally:
        on = before


@functools.cache
def named(op: str, backend: str, module: ModuleType) -> Any:
    """What stands for a backend's module while ranges are on: its functions, each inside a range."""
    return _Named(f"sdas_kernels.{op}", backend, module)


class _Named:
    def __init__(self, op: str, backend: str, module: ModuleType) -> None:
        self._op, self._backend, self._module = op, backend, module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function, label = getattr(self._module, name), f"{self._op}.{name} ({self._backend})"

        def inside(*arguments: Any, **options: Any) -> Any:
            push, pop = _nvtx()
            push(label)
            try:
                with torch.profiler.record_function(label):
                    return function(*arguments, **options)
            finally:
                pop()

        return inside


@functools.cache
def _nvtx() -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """How Nsight is told that a range begins, and that it ends."""
    try:
        import nvtx
    except ImportError:
        if torch.cuda.is_available():
            return torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop
        return lambda label: None, lambda: None
    return nvtx.push_range, nvtx.pop_range
