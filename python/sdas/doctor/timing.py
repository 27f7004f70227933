"""Time operators: value, gradient and gradient of the gradient, by every backend that runs here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

import sdas_kernels as sk
from sdas.doctor.timing_cases import CASES, Call
from sdas_kernels import dispatch

REPEATS = 7
ENOUGH_S = 0.3
"""Slow calls are repeated less often: no more once this much time is spent on them."""


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one operator by one backend, or the reason why it does not run here.

    backward: all gradients from one output gradient. double_backward: all gradients of those, if there are any.
    chosen: whether this is the backend that runs unless another is asked for.
    """

    op: str
    backend: str
    device: str
    dtype: str
    sizes: str
    chosen: bool
    forward_ms: float | None
    backward_ms: float | None
    double_backward_ms: float | None
    problem: str | None

    def row(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)


def time_ops(
    device: str = "cpu", dtype: torch.dtype = torch.float32, ops: list[str] | None = None, repeats: int = REPEATS
) -> Iterator[Timing]:
    """A timing of every operator by every backend that it has, one after the other."""
    for op in ops or dispatch.ops():
        chosen = dispatch.backend_name(op, device, dtype)
        for backend in dispatch.BACKENDS:
            problem = _why_not(op, backend, device, dtype)
            if problem is None or backend == chosen:
                yield _time(op, backend, device, dtype, backend == chosen, repeats)
            elif "has no backend" not in problem:
                yield _row(op, backend, device, dtype, "", False, problem=problem)


def _why_not(op: str, backend: str, device: str, dtype: torch.dtype) -> str | None:
    try:
        with sk.use_backend(backend, op):
            dispatch.backend_name(op, device, dtype)
    except RuntimeError as error:
        return str(error)
    return None


def _time(op: str, backend: str, device: str, dtype: torch.dtype, chosen: bool, repeats: int) -> Timing:
    if op not in CASES:
        return _row(op, backend, device, dtype, "", chosen, problem="no timing case")
    call = CASES[op](torch.device(device), dtype)
    try:
        with sk.use_backend(backend, op):
            times = _time_ladder(call, repeats)
    except Exception as error:  # the doctor reports a sick backend instead of dying of it
        return _row(op, backend, device, dtype, call.sizes, chosen, problem=f"{type(error).__name__}: {error}")
    return _row(op, backend, device, dtype, call.sizes, chosen, times)


def _row(
    op: str,
    backend: str,
    device: str,
    dtype: torch.dtype,
    sizes: str,
    chosen: bool,
    times: tuple[float | None, float | None, float | None] = (None, None, None),
    problem: str | None = None,
) -> Timing:
    name = str(dtype).removeprefix("torch.")
    return Timing(op, backend, device, name, sizes, chosen, *times, problem)


def _time_ladder(call: Call, repeats: int) -> tuple[float, float, float | None]:
    operands = [tensor.detach().requires_grad_() for tensor in call.tensors]
    with torch.no_grad():
        forward = _median_ms(lambda: call.function(*operands), repeats, operands[0].device)
    out = call.function(*operands)
    weight = torch.ones_like(out).requires_grad_()
    backward = _median_ms(lambda: torch.autograd.grad(out, operands, weight, retain_graph=True), repeats, out.device)
    if not call.twice:
        return forward, backward, None
    first = torch.autograd.grad(out, operands, weight, create_graph=True)
    again, second = [*operands, weight], [torch.ones_like(gradient) for gradient in first]
    double = _median_ms(
        lambda: torch.autograd.grad(first, again, second, retain_graph=True, allow_unused=True), repeats, out.device
    )
    return forward, backward, double


def _median_ms(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median of up to `repeats` calls, after one that is not counted."""
    times: list[float] = []
    run()
    while len(times) < repeats and (not times or sum(times) < 1000 * ENOUGH_S):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
