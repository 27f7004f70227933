"""How GPU benchmarks time, and where what they find is kept.

SDAS_DEVICE is `cuda`, or `cpu` for a dry run: the same code on tiny sizes, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import record
import torch

DEVICE = torch.device(os.environ.get("SDAS_DEVICE", "cuda"))
DRY = DEVICE.type == "cpu"
WARMUP, MOST_CALLS, ENOUGH_S = (1, 2, 0.0) if DRY else (3, 30, 0.5)
Function = Callable[[], Any]


class Report:
    """Cases of one benchmark, written to its result file after each of them, so that a run cut short keeps them."""

    failed = 0  # cases, of all reports

    def __init__(self, benchmark: str, unit: str, packages: Sequence[str] = ()) -> None:
        self.benchmark, self.unit, self.packages = benchmark, unit, ("triton", *packages)
        self.rows: list[dict[str, Any]] = []

    def case(self, measured: Callable[[], dict[str, Any]], optional: bool = False, **row: Any) -> None:
        """Add what `measured()` finds; an error is kept in its place, and counts unless the case is optional."""
        try:
            row |= measured()
        except Exception as error:  # the cases that follow are still wanted
            row["problem"] = f"{type(error).__name__}: {error}"[:500]
            traceback.print_exc()
            Report.failed += not optional
        if not DRY:
            torch.cuda.empty_cache()
        self.rows.append(row)
        unit = self.unit + ("; a dry run: sizes are tiny and times mean nothing" if DRY else "")
        name = f"gpu_{self.benchmark}_{'dry_run' if DRY else ''}".rstrip("_")
        record.write_result(name, self.rows, unit, self.packages)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)


def end() -> None:
    """Exit with failure if a case failed."""
    raise SystemExit(1 if Report.failed else 0)


def chosen(*cases: str) -> list[str]:
    """Which parts of a benchmark the command line asks for: all, by default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", choices=[*cases, []])
    return parser.parse_args().cases or list(cases)


def times(function: Function) -> list[float]:
    """Seconds of each call, after some that are not counted: by events on a GPU, by the clock on a CPU."""
    found: list[float] = []
    for turn in range(WARMUP + MOST_CALLS):
        seconds = _once(function)
        if turn >= WARMUP:
            found.append(seconds)
        if sum(found) > ENOUGH_S and len(found) >= 5:
            break
    return found


def milliseconds(function: Function) -> dict[str, float]:
    """Median and spread of a call."""
    found = times(function)
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return {"ms": round(1e3 * middle, 5), "ms_low": round(1e3 * low, 5), "ms_high": round(1e3 * high, 5)}


def _once(function: Function) -> float:
    if DRY:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_rate() -> float:
    """Bytes per second of a copy on the device, read and written bytes both counted: the roof of this very run."""
    size = 2**20 if DRY else 2**32
    source = torch.randint(255, (size,), dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * size / statistics.median(times(lambda: target.copy_(source)))


def memory_peak(function: Function) -> dict[str, float]:
    """MiB that a call needs beyond what is there before it."""
    if DRY:
        return {}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return {"peak_mib": round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)}


def ladder(function: Callable[..., torch.Tensor], operands: Iterable[torch.Tensor]) -> dict[str, Function]:
    """Forward, backward and double backward of a function, each as a call of its own, by all of its operands.

    The backward is that of a graph made beforehand; the double backward is by the operands and the incoming gradient.
    """
    leaves = [t.detach().requires_grad_() for t in operands]
    value = function(*leaves)
    grad = torch.randn_like(value).requires_grad_()
    tangents = [torch.randn_like(t) for t in leaves]

    def forward() -> Any:
        with torch.no_grad():
            return function(*leaves)

    def backward() -> Any:
        return torch.autograd.grad(value, leaves, grad, retain_graph=True)

    made: list[Any] = []

    def double_backward() -> Any:
        if not made:  # kept alive from the first, uncounted call on
            made.extend(torch.autograd.grad(value, leaves, grad, create_graph=True))
        return torch.autograd.grad(made, [grad, *leaves], tangents, retain_graph=True, allow_unused=True)

    return {"forward": forward, "backward": backward, "double_backward": double_backward}


def off_by(found: torch.Tensor, exact: torch.Tensor) -> float:
    """‖found - exact‖ / ‖exact‖; raises unless both are finite."""
    difference = torch.linalg.vector_norm(found.detach().double().cpu() - exact.detach().double().cpu())
    relative = float(difference / torch.linalg.vector_norm(exact.detach().double().cpu()))
    if not math.isfinite(relative):
        raise ArithmeticError("the result or the reference is not finite")
    return relative


def require(found: torch.Tensor, exact: torch.Tensor, tolerance: float) -> dict[str, float]:
    """`off_by` as a column, or an error where it is more than the tolerance: what is wrong is not timed."""
    relative = off_by(found, exact)
    if relative > tolerance:
        raise ArithmeticError(f"off by {relative:.2e} of the reference's norm, {tolerance:.0e} is allowed")
    return {"off_by": float(f"{relative:.2e}")}
