# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""Tensor product on the GPU by Triton; `composition.py` adds what goes through matrix products.

A program is one warp: a block of samples, a block of channels, one piece of the specification (`pieces.py`); the pieces
of a launch stand in one kernel, each behind its own branch. Its numbers are tiles of samples times channels, one number
per thread. With a the first operand, s the second, g the result's gradient, and ' for tangents, a path adds

    results      z_k += Σ_i a_i (Σ_j C s_j), times w          with tangents (w a' + w' a, s) + (w a, s')
    operands     ∂a_i += Σ_k w g_k (Σ_j C s_j)                              (w' g, s) + (w g, s')
                 ∂s_j += Σ_c w h_j, ∂w = Σ_j s_j h_j                        Σ_c w h'_j + w' h_j, Σ_j s_j h'_j + s'_j h_j
                 with h_j = Σ_k g_k (Σ_i C a_i), and h' of a'
    weights      ∂w of a weight shared by all samples

The coefficients are unrolled as constants. Components of a channel are neighbors in memory: a warp's loads of them, one
after the other, use every byte of the lines that the first one brings.

Nothing is added atomically. Where pieces or blocks of channels share a result, each writes its own part; a gradient by
a shared weight is summed by each program over its samples, in their order. PyTorch sums the parts.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels.ops.tensor_product import composition
from sdas_kernels.ops.tensor_product.pieces import CHANNELS, Family, Pieces, Plan, blocks
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec
from sdas_kernels.ops.tensor_product.tables import OUT, Kernels, Path, X, Y
from sdas_kernels.ops.tensor_product.triton_tiles import (
    add_group,
    add_to_first,
    add_to_weight,
    block_of,
    contract,
    first_rows,
    gradient_rows,
    load_weight,
    second_rows,
    store_first,
    store_result,
    store_second,
    to_second_and_weight,
    weight_place,
)
from sdas_kernels.triton_support import LAUNCH
from sdas_kernels.triton_tables import entry, size

BUDGET = 112  # numbers kept per channel and sample, of each piece
BUDGET_F64 = 56  # a float64 takes two registers
SPANS = 512  # into which the batch is cut at most to sum the gradient by a shared weight
SPAN = 32  # samples at least in a span


@triton.jit
def _results(
    out, x, x_step, y, y_step, weight, weight_step, batch,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DIM_OUT: tl.constexpr, ROW: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * BLOCK_B
    sample, channel, mask = block_of(start, batch, entry(PIECE, "mul"), BLOCK_B, BLOCK_C)
    zero = tl.zeros((BLOCK_B * BLOCK_C,), DTYPE)
    a = first_rows(x, y, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
    a_step = a
    if STEP:
        a_step = first_rows(x_step, y_step, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
    s = second_rows(x, y, sample, channel, 0, mask, PIECE, DIM1, DIM2, DTYPE)
    s_step = s
    if STEP:
        s_step = second_rows(x_step, y_step, sample, channel, 0, mask, PIECE, DIM1, DIM2, DTYPE)
    for g in tl.static_range(size(PIECE, "out")):
        z = (zero,) * entry(PIECE, "out", g, 7)
        if entry(PIECE, "members") == 1:
            z = add_group(z, a, a_step, s, s_step, weight, weight_step, sample, channel, 0, mask, zero,
                          0, PIECE, g, ROW, DTYPE, STEP)  # fmt: skip
        else:
            for member in range(entry(PIECE, "members")):
                s = second_rows(x, y, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
                if STEP:
                    s_step = second_rows(x_step, y_step, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
                z = add_group(z, a, a_step, s, s_step, weight, weight_step, sample, channel, member, mask, zero,
                              0, PIECE, g, ROW, DTYPE, STEP)  # fmt: skip
                if entry(PIECE, "stepped"):
                    store_result(out, z, sample, channel, member, batch, mask, PIECE, g, DIM_OUT)
                    z = (zero,) * entry(PIECE, "out", g, 7)
        if not entry(PIECE, "stepped"):
            store_result(out, z, sample, channel, 0, batch, mask, PIECE, g, DIM_OUT)


@triton.jit(do_not_specialize=["batch"])
def results(
    out, x, x_step, y, y_step, weight, weight_step, batch,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DIM_OUT: tl.constexpr, ROW: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """z, or its derivative along the steps. Grid: blocks of samples, blocks of channels, pieces."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            _results(out, x, x_step, y, y_step, weight, weight_step, batch, entry(LAUNCH, "pieces", n),
                     DIM1, DIM2, DIM_OUT, ROW, BLOCK_B, BLOCK_C, DTYPE, STEP)  # fmt: skip


@triton.jit
def _operands(
    by_x, by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, batch,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, ROW: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
    TO_FIRST: tl.constexpr, TO_SECOND: tl.constexpr, TO_WEIGHT: tl.constexpr,
):  # fmt: skip
    members: tl.constexpr = entry(PIECE, "members")
    start = tl.program_id(0).to(tl.int64) * BLOCK_B
    sample, channel, mask = block_of(start, batch, entry(PIECE, "mul"), BLOCK_B, BLOCK_C)
    zero = tl.zeros((BLOCK_B * BLOCK_C,), DTYPE)
    a = first_rows(x, y, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
    a_step = a
    if STEP:
        a_step = first_rows(x_step, y_step, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
    by_a = (zero,) * size(PIECE, "first")
    for member in range(members):
        s = second_rows(x, y, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
        s_step = s
        if STEP:
            s_step = second_rows(x_step, y_step, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
        by_s = (zero,) * size(PIECE, "second")
        for g in tl.static_range(size(PIECE, "out")):
            g_rows = gradient_rows(grad, sample, channel, member, batch, mask, PIECE, g, DTYPE)
            for p in tl.static_range(size(PIECE, "path", g)):
                w = load_weight(weight, sample, channel, member, mask, zero + 1.0, PIECE, g, p, ROW, DTYPE)
                w_step = zero
                if STEP:
                    w_step = load_weight(weight_step, sample, channel, member, mask, zero, PIECE, g, p, ROW, DTYPE)
                if TO_FIRST:
                    by_a = add_to_first(by_a, g_rows, s, s_step, w, w_step, zero,
                                     entry(PIECE, "path", g, p, 0), entry(PIECE, "path", g, p, 1),
                                     PIECE, g, p, STEP)  # fmt: skip
                if TO_SECOND or TO_WEIGHT:
                    by_s = to_second_and_weight(by_s, by_weight, a, a_step, g_rows, s, s_step, w, w_step,
                                                sample, channel, member, mask, zero,
                                                0, PIECE, g, p, ROW, STEP, TO_SECOND, TO_WEIGHT)  # fmt: skip
        if TO_SECOND:
            store_second(by_x, by_y, by_s, start, batch, sample, channel, member, batch, mask,
                         PIECE, DIM1, DIM2, BLOCK_B, BLOCK_C)  # fmt: skip
    if TO_FIRST:
        store_first(by_x, by_y, by_a, sample, channel, batch, mask, PIECE, DIM1, DIM2)


@triton.jit(do_not_specialize=["batch"])
def operands(
    by_x, by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, batch,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, ROW: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
    TO_X: tl.constexpr, TO_Y: tl.constexpr, TO_WEIGHT: tl.constexpr,
):  # fmt: skip
    """Gradients by x, y and a weight per sample, those that are wanted. Grid: as `results`."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            if entry(entry(LAUNCH, "pieces", n), "first_is_x"):
                _operands(by_x, by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, batch,
                          entry(LAUNCH, "pieces", n), DIM1, DIM2, ROW, BLOCK_B, BLOCK_C, DTYPE, STEP,
                          TO_X, TO_Y, TO_WEIGHT)  # fmt: skip
            else:
                _operands(by_x, by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, batch,
                          entry(LAUNCH, "pieces", n), DIM1, DIM2, ROW, BLOCK_B, BLOCK_C, DTYPE, STEP,
                          TO_Y, TO_X, TO_WEIGHT)  # fmt: skip


@triton.jit
def _weights(
    partial, grad, x, x_step, y, y_step, batch, span,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    zero = tl.zeros((BLOCK_B * BLOCK_C,), DTYPE)
    begin = tl.program_id(0).to(tl.int64) * span
    for member in range(entry(PIECE, "members")):
        for g in tl.static_range(size(PIECE, "out")):
            totals = (zero,) * size(PIECE, "path", g)
            for start in range(begin, tl.minimum(begin + span, batch), BLOCK_B):
                sample, channel, mask = block_of(start, batch, entry(PIECE, "mul"), BLOCK_B, BLOCK_C)
                a = first_rows(x, y, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
                s = second_rows(x, y, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
                a_step = a
                s_step = s
                if STEP:
                    a_step = first_rows(x_step, y_step, sample, channel, mask, PIECE, DIM1, DIM2, DTYPE)
                    s_step = second_rows(x_step, y_step, sample, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
                g_rows = gradient_rows(grad, sample, channel, member, batch, mask, PIECE, g, DTYPE)
                sums = ()
                for p in tl.static_range(size(PIECE, "path", g)):
                    if entry(PIECE, "path", g, p, 2) >= 0:
                        h = contract(g_rows, a, zero, 0, entry(PIECE, "path", g, p, 0), PIECE, "to_second", g, p)
                        h_step = h
                        if STEP:
                            h_step = contract(g_rows, a_step, zero, 0, entry(PIECE, "path", g, p, 0),
                                              PIECE, "to_second", g, p)  # fmt: skip
                        total = add_to_weight(totals[p], h, h_step, s, s_step, entry(PIECE, "path", g, p, 1),
                                              size(PIECE, "to_second", g, p), STEP)  # fmt: skip
                        sums += (total,)
                    else:
                        sums += (totals[p],)
                totals = sums
            channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
            for p in tl.static_range(size(PIECE, "path", g)):
                if entry(PIECE, "path", g, p, 2) >= 0:
                    at = weight_place(tl.program_id(0).to(tl.int64), channels, member, PIECE, g, p, NUMEL)
                    total = tl.sum(tl.reshape(totals[p], (BLOCK_B, BLOCK_C)), 0)
                    tl.store(partial + at, total, mask=channels < entry(PIECE, "mul"))


@triton.jit(do_not_specialize=["batch", "span"])
def weights(
    partial, grad, x, x_step, y, y_step, batch, span,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The gradient by a shared weight, of each span of samples. Grid: spans, blocks of channels, pieces."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            _weights(partial, grad, x, x_step, y, y_step, batch, span, entry(LAUNCH, "pieces", n),
                     DIM1, DIM2, NUMEL, BLOCK_B, BLOCK_C, DTYPE, STEP)  # fmt: skip


def build(
    families: list[list[Path]],
    gaps: list[tuple[int, int, int]],
    s: TensorProductSpec,
    dim_out: int,
    dtype: torch.dtype,
) -> Pieces:
    """Pieces of some families of kernel paths. `gaps`: array, offset, size of what no path writes."""
    budget = BUDGET_F64 if dtype == torch.float64 else BUDGET
    return Pieces([Family.of(family) for family in families if family], gaps, (*s.dims[:2], dim_out), budget)


def run(kernel: str, pieces: Pieces, **tensors: Tensor | None) -> None:
    """Run a rung of the ladder on all samples; a result that is None is not computed."""
    step = kernel == "double_backward"
    names = ("x", "x_step", "y", "y_step", "weight", "weight_step")
    given = [tensors[name if step else name.removesuffix("_step")] for name in names]
    x, grad, weight = tensors["x"], tensors.get("grad"), tensors["weight"]
    assert x is not None
    assert weight is not None
    shared, numel = weight.ndim == 1, weight.shape[-1]
    constants = {
        "DIM1": pieces.dims[0],
        "DIM2": pieces.dims[1],
        "DTYPE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "STEP": step,
    }
    row = {"ROW": 0 if shared else numel}
    out, by_x, by_y, by_weight = (tensors.get(name) for name in ("out", "by_x", "by_y", "by_weight"))
    if out is not None:
        plan = pieces.by_result
        for _, start, length in (gap for gap in pieces.gaps if gap[0] == OUT):
            out[:, start : start + length] = 0
        parts = out if plan.parts[OUT] == 1 else parts_of(out, plan.parts[OUT], plan.complete[OUT])
        _run(results, plan, x, parts, *given, len(x), DIM_OUT=pieces.dims[2], **row, **constants)
        add_parts(out, parts)
    each = None if shared else by_weight
    if by_x is not None or by_y is not None or each is not None:
        plan = pieces.by_operand
        made = [parts_of(t, plan.parts[n], plan.complete[n]) for n, t in ((X, by_x), (Y, by_y))]
        wanted = {"TO_X": by_x is not None, "TO_Y": by_y is not None, "TO_WEIGHT": each is not None}
        targets = [x if t is None else t for t in (*made, each)]
        _run(operands, plan, x, *targets, grad, *given, len(x), **wanted, **row, **constants)
        for result, part in zip((by_x, by_y), made, strict=True):
            add_parts(result, part)
    if shared and by_weight is not None:
        span = max(SPAN, triton.cdiv(len(x), SPANS))
        spans = triton.cdiv(len(x), span)
        sums = x.new_zeros(spans, numel, dtype=_summed(x))
        _run(weights, pieces.by_operand, x, sums, grad, *given[:4], len(x), span, spans=spans, NUMEL=numel, **constants)
        by_weight.copy_(sums.sum(0))


def _summed(tensor: Tensor) -> torch.dtype:
    """In which sums are kept."""
    return tensor.dtype if tensor.dtype == torch.float64 else torch.float32


def parts_of(result: Tensor | None, count: int, complete: bool) -> Tensor | None:
    """What a kernel writes into: the result, or parts of it; zeros where it does not write everything."""
    if result is None:
        return None
    if count == 1:
        return result if complete else result.zero_()
    make = result.new_empty if complete else result.new_zeros
    return make(count, *result.shape, dtype=_summed(result))


def add_parts(result: Tensor | None, parts: Tensor | None) -> None:
    """The result, from its parts."""
    if result is not None and parts is not None and parts is not result:
        result.copy_(parts.sum(0))


def _run(kernel, plan: Plan, x: Tensor, *arguments, spans: int | None = None, **constants) -> None:
    """Launch a kernel on blocks of all samples, or on so many spans of them."""
    for launch in plan.launches if len(x) else ():
        block = min(CHANNELS, triton.next_power_of_2(launch.mul))
        constants |= {"LAUNCH": launch, "BLOCK_B": CHANNELS // block, "BLOCK_C": block}
        samples = triton.cdiv(len(x), CHANNELS // block) if spans is None else spans
        with torch.cuda.device_of(x):
            kernel[samples, blocks(launch.mul), len(launch.pieces)](*arguments, **constants, **LAUNCH)


KERNELS = Kernels(build, run, chunk_bytes=1 << 28)

forward = partial(composition.forward, KERNELS)
backward = partial(composition.backward, KERNELS)
double_backward = partial(composition.double_backward, KERNELS)
