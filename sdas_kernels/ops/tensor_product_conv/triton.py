# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""The convolution on the GPU by Triton: gather, product and sum in one kernel for each of three contractions.

A program is one warp: one node, a block of channels, one piece of the specification (`pieces.py`). It goes through the
node's edges in their order, so many at a time as make a warp with the block of channels: one from 32 channels on. In
the terms of `tensor_product/triton.py`, with a = x_j of the sender, s = y of the edge, g = ∂z_i of the receiver,

    to receivers    z_i of a receiver stay in registers; what its edges bring is gathered and added
    to senders      ∂x_j of a sender stay in registers, over the transposed list of edges
    of edges        ∂z_i of a receiver stay in registers; ∂y and ∂w of each of its edges are written, after all of the
                    edge has been read: a load could not pass a store

make the derivative ladder, each with its derivative along the steps. No array has an edge and a channel axis but the
weights and their gradient, and each number of a node is written once. Nothing is added atomically: where pieces share
an entry of a result, or blocks of channels a gradient by y, each writes its own part, and PyTorch sums the parts.

A weight that all edges share, and paths of modes that mix channels, go edge by edge through the tensor product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels.ops.needs import like
from sdas_kernels.ops.tensor_product import triton as product
from sdas_kernels.ops.tensor_product.pieces import CHANNELS, Plan, blocks
from sdas_kernels.ops.tensor_product.tables import OUT, X, Y
from sdas_kernels.ops.tensor_product.triton import add_parts, parts_of
from sdas_kernels.ops.tensor_product.triton_tiles import (
    add_group,
    add_to_first,
    block_of,
    first_rows,
    gradient_rows,
    load_weight,
    second_rows,
    store_first,
    store_result,
    store_second,
    to_second_and_weight,
)
from sdas_kernels.ops.tensor_product_conv import composition
from sdas_kernels.ops.tensor_product_conv.pieces import ConvolutionPieces, pieces
from sdas_kernels.triton_support import LAUNCH
from sdas_kernels.triton_tables import entry, size


@triton.constexpr_function
def first_row(piece, group):
    """Of a group's result among the rows of all; for the number of groups, how many rows there are."""
    return sum(out[7] for out in piece.out[:group])


@triton.constexpr_function
def number_of(piece, group, path):
    """Of a group's path among those of all groups."""
    return sum(len(paths) for paths in piece.path[:group]) + path


@triton.jit
def _weights(
    weight, edge, channel, member, mask, otherwise, PIECE: tl.constexpr, NUMEL: tl.constexpr, DTYPE: tl.constexpr
):
    """Of all paths; `otherwise` where a path has none."""
    weights = ()
    for g in tl.static_range(size(PIECE, "out")):
        for p in tl.static_range(size(PIECE, "path", g)):
            weights += (load_weight(weight, edge, channel, member, mask, otherwise, PIECE, g, p, NUMEL, DTYPE),)
    return weights


@triton.jit
def _summed(rows, FIRST: tl.constexpr, COUNT: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr):
    """Some of the rows, each summed over the edges that a program works on at a time."""
    sums = ()
    for r in tl.static_range(COUNT):
        if BLOCK_E == 1:
            sums += (rows[FIRST + r],)
        else:
            sums += (tl.sum(tl.reshape(rows[FIRST + r], (BLOCK_E, BLOCK_C)), 0),)
    return sums


@triton.jit
def _to_receivers(
    out, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DIM_OUT: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    node = tl.program_id(0).to(tl.int64)
    zero = tl.zeros((BLOCK_E * BLOCK_C,), DTYPE)
    z = (zero,) * first_row(PIECE, size(PIECE, "out"))
    end = tl.load(row_ptr + node + 1)
    for start in range(tl.load(row_ptr + node), end, BLOCK_E):
        edge, channel, mask = block_of(start, end, entry(PIECE, "mul"), BLOCK_E, BLOCK_C)
        sender = tl.load(senders + edge, mask=edge < end, other=0)
        a = first_rows(x, y, sender, channel, mask, PIECE, DIM1, DIM2, DTYPE)
        a_step = a
        if STEP:
            a_step = first_rows(x_step, y_step, sender, channel, mask, PIECE, DIM1, DIM2, DTYPE)
        for member in range(entry(PIECE, "members")):
            s = second_rows(x, y, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            s_step = s
            if STEP:
                s_step = second_rows(x_step, y_step, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            for g in tl.static_range(size(PIECE, "out")):
                z = add_group(z, a, a_step, s, s_step, weight, weight_step, edge, channel, member, mask, zero,
                              first_row(PIECE, g), PIECE, g, NUMEL, DTYPE, STEP)  # fmt: skip
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    for g in tl.static_range(size(PIECE, "out")):
        total = _summed(z, first_row(PIECE, g), entry(PIECE, "out", g, 7), BLOCK_E, BLOCK_C)
        store_result(out, total, node, channels, 0, nodes, channels < entry(PIECE, "mul"), PIECE, g, DIM_OUT)


@triton.jit(do_not_specialize=["nodes"])
def to_receivers(
    out, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DIM_OUT: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """z_i, or its derivative along the steps. Grid: receivers, blocks of channels, pieces."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            _to_receivers(out, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes,
                          entry(LAUNCH, "pieces", n), DIM1, DIM2, DIM_OUT, NUMEL, BLOCK_E, BLOCK_C, DTYPE,
                          STEP)  # fmt: skip


@triton.jit
def _to_senders(
    by_x, grad, y, y_step, weight, weight_step, receivers, sender_order, sender_ptr, nodes,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    node = tl.program_id(0).to(tl.int64)
    zero = tl.zeros((BLOCK_E * BLOCK_C,), DTYPE)
    by_a = (zero,) * size(PIECE, "first")
    end = tl.load(sender_ptr + node + 1)
    for start in range(tl.load(sender_ptr + node), end, BLOCK_E):
        place, channel, mask = block_of(start, end, entry(PIECE, "mul"), BLOCK_E, BLOCK_C)
        edge = tl.load(sender_order + place, mask=place < end, other=0)
        receiver = tl.load(receivers + edge, mask=place < end, other=0)
        for member in range(entry(PIECE, "members")):
            s = second_rows(by_x, y, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            s_step = s
            if STEP:
                s_step = second_rows(by_x, y_step, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            for g in tl.static_range(size(PIECE, "out")):
                g_rows = gradient_rows(grad, receiver, channel, member, nodes, mask, PIECE, g, DTYPE)
                for p in tl.static_range(size(PIECE, "path", g)):
                    w = load_weight(weight, edge, channel, member, mask, zero + 1.0, PIECE, g, p, NUMEL, DTYPE)
                    w_step = zero
                    if STEP:
                        w_step = load_weight(weight_step, edge, channel, member, mask, zero, PIECE, g, p, NUMEL, DTYPE)
                    by_a = add_to_first(by_a, g_rows, s, s_step, w, w_step, zero,
                                        entry(PIECE, "path", g, p, 0), entry(PIECE, "path", g, p, 1),
                                        PIECE, g, p, STEP)  # fmt: skip
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = _summed(by_a, 0, size(PIECE, "first"), BLOCK_E, BLOCK_C)
    store_first(by_x, y, total, node, channels, nodes, channels < entry(PIECE, "mul"), PIECE, DIM1, DIM2)


@triton.jit(do_not_specialize=["nodes"])
def to_senders(
    by_x, grad, y, y_step, weight, weight_step, receivers, sender_order, sender_ptr, nodes,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """∂x_j, or its derivative along the steps. Grid: senders, blocks of channels, pieces."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            _to_senders(by_x, grad, y, y_step, weight, weight_step, receivers, sender_order, sender_ptr, nodes,
                        entry(LAUNCH, "pieces", n), DIM1, DIM2, NUMEL, BLOCK_E, BLOCK_C, DTYPE, STEP)  # fmt: skip


@triton.jit
def _of_edges(
    by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes, edges,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
    TO_Y: tl.constexpr, TO_WEIGHT: tl.constexpr,
):  # fmt: skip
    node = tl.program_id(0).to(tl.int64)
    zero = tl.zeros((BLOCK_E * BLOCK_C,), DTYPE)
    begin = tl.load(row_ptr + node)
    end = tl.load(row_ptr + node + 1)
    _, channels, exists = block_of(begin, end, entry(PIECE, "mul"), BLOCK_E, BLOCK_C)
    g_rows = ()
    for g in tl.static_range(size(PIECE, "out")):
        g_rows += gradient_rows(grad, node, channels, 0, nodes, exists, PIECE, g, DTYPE)
    for start in range(begin, end, BLOCK_E):
        edge, channel, mask = block_of(start, end, entry(PIECE, "mul"), BLOCK_E, BLOCK_C)
        sender = tl.load(senders + edge, mask=edge < end, other=0)
        a = first_rows(x, y, sender, channel, mask, PIECE, DIM1, DIM2, DTYPE)
        a_step = a
        if STEP:
            a_step = first_rows(x_step, y_step, sender, channel, mask, PIECE, DIM1, DIM2, DTYPE)
        for member in range(entry(PIECE, "members")):
            s = second_rows(x, y, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            s_step = s
            if STEP:
                s_step = second_rows(x_step, y_step, edge, channel, member, mask, PIECE, DIM1, DIM2, DTYPE)
            w = _weights(weight, edge, channel, member, mask, zero + 1.0, PIECE, NUMEL, DTYPE)
            w_step = w
            if STEP:
                w_step = _weights(weight_step, edge, channel, member, mask, zero, PIECE, NUMEL, DTYPE)
            by_s = (zero,) * size(PIECE, "second")
            for g in tl.static_range(size(PIECE, "out")):
                for p in tl.static_range(size(PIECE, "path", g)):
                    by_s = to_second_and_weight(
                        by_s, by_weight, a, a_step, g_rows, s, s_step, w[number_of(PIECE, g, p)],
                        w_step[number_of(PIECE, g, p)], edge, channel, member, mask, zero, first_row(PIECE, g),
                        PIECE, g, p, NUMEL, STEP, TO_Y, TO_WEIGHT,
                    )  # fmt: skip
            if TO_Y:
                store_second(by_y, by_y, by_s, start, end, edge, channel, member, edges, mask,
                             PIECE, DIM1, DIM2, BLOCK_E, BLOCK_C)  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "edges"])
def of_edges(
    by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes, edges,
    LAUNCH: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, NUMEL: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
    TO_Y: tl.constexpr, TO_WEIGHT: tl.constexpr,
):  # fmt: skip
    """∂y and ∂w, those that are wanted, or their derivatives. Grid: receivers, blocks of channels, pieces."""
    for n in tl.static_range(size(LAUNCH, "pieces")):
        if tl.program_id(2) == n and tl.program_id(1) * BLOCK_C < entry(entry(LAUNCH, "pieces", n), "mul"):
            _of_edges(by_y, by_weight, grad, x, x_step, y, y_step, weight, weight_step, senders, row_ptr, nodes, edges,
                      entry(LAUNCH, "pieces", n), DIM1, DIM2, NUMEL, BLOCK_E, BLOCK_C, DTYPE, STEP,
                      TO_Y, TO_WEIGHT)  # fmt: skip


class _Job:
    """What the edges carry, its steps in a double backward, and the kernels on it."""

    def __init__(
        self, p: ConvolutionPieces, index: list[Tensor], carried: Sequence[Tensor], steps: Sequence[Tensor | None] = ()
    ) -> None:
        self.p, self.index, (self.y, self.weight) = p, index, carried
        self.nodes, self.moves = len(index[2]) - 1, bool(steps)
        y_step, weight_step = steps or (None, None)
        self.carried = *self._pair(self.y, y_step), *self._pair(self.weight, weight_step)
        self.constants = {
            "DIM1": p.dims[0],
            "DIM2": p.dims[1],
            "NUMEL": self.weight.shape[-1],
            "DTYPE": tl.float64 if self.y.dtype == torch.float64 else tl.float32,
            "STEP": self.moves,
        }

    def to_receivers(self, x: Tensor, x_step: Tensor | None = None) -> Tensor:
        """`[N, dim_out]`."""
        plan, out = self.p.to_receivers, self.y.new_empty(self.nodes, self.p.dims[2])
        parts = parts_of(out, plan.parts[OUT], plan.complete[OUT])
        operands = *self._pair(x, x_step), *self.carried, *self.index[1:3]
        self._run(to_receivers, plan, parts, *operands, self.nodes, DIM_OUT=self.p.dims[2])
        add_parts(out, parts)
        return out

    def to_senders(self, grad: Tensor) -> Tensor:
        """`[N, dim1]`."""
        plan, by_x = self.p.to_senders, self.y.new_empty(self.nodes, self.p.dims[0])
        parts = parts_of(by_x, plan.parts[X], plan.complete[X])
        self._run(to_senders, plan, parts, grad, *self.carried, self.index[0], *self.index[3:], self.nodes)
        add_parts(by_x, parts)
        return by_x

    def of_edges(
        self, grad: Tensor, needs: Sequence[bool], x: Tensor, x_step: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`[E, dim2]` and `[E, numel]`, each where `needs` says so, else of no elements."""
        plan, (by_y, by_weight) = self.p.of_edges, like((self.y, self.weight), needs)
        parts = parts_of(by_y, plan.parts[Y], plan.complete[Y]) if needs[0] else by_y
        operands = grad, *self._pair(x, x_step), *self.carried, *self.index[1:3]
        wanted = {"TO_Y": needs[0], "TO_WEIGHT": needs[1]}
        if any(needs):
            self._run(of_edges, plan, parts, by_weight, *operands, self.nodes, len(self.y), **wanted)
        add_parts(by_y, parts)
        return by_y, by_weight

    def _pair(self, operand: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor]:
        """An operand and its step; without steps a kernel does not read the second."""
        if self.moves and step is None:
            step = torch.zeros_like(operand)
        return operand, operand if step is None else step

    def _run(self, kernel, plan: Plan, *arguments, **constants) -> None:
        """Launch a kernel on all nodes."""
        for launch in plan.launches if self.nodes else ():
            block = min(CHANNELS, triton.next_power_of_2(launch.mul))
            constants |= {"LAUNCH": launch, "BLOCK_E": CHANNELS // block, "BLOCK_C": block}
            grid = self.nodes, blocks(launch.mul), len(launch.pieces)
            with torch.cuda.device_of(self.y):
                kernel[grid](*arguments, **constants, **self.constants, **LAUNCH)


def forward(x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str) -> Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[numel]` or `[E, numel]` -> `[N, dim_out]`."""
    p = _pieces(weight, spec)
    if p is None:
        return composition.forward(product, x, y, weight, index, spec)
    return _Job(p, index, (y, weight)).to_receivers(x)


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    p = _pieces(weight, spec)
    if p is None:
        return composition.backward(product, grad, x, y, weight, index, spec, needs)
    job = _Job(p, index, (y, weight))
    by_x = job.to_senders(grad) if needs[0] else x.new_empty(0)
    return by_x, *job.of_edges(grad, needs[1:], x)


def double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight."""
    p = _pieces(weight, spec)
    if p is None:
        steps, operands = (grad_x, grad_y, grad_weight), (grad, x, y, weight)
        return composition.double_backward(product, *steps, *operands, index, spec, needs)
    job = _Job(p, index, (y, weight), (grad_y, grad_weight))
    by_grad = job.to_receivers(x, grad_x) if needs[0] else x.new_empty(0)
    by_x = job.to_senders(grad) if needs[1] else x.new_empty(0)
    return by_grad, by_x, *job.of_edges(grad, needs[2:], x, grad_x)


basis_forward = partial(composition.basis_forward, forward)
basis_backward = partial(composition.basis_backward, backward)
basis_double_backward = partial(composition.basis_double_backward, backward, double_backward)


def _pieces(weight: Tensor, spec: str) -> ConvolutionPieces | None:
    """None for what goes edge by edge."""
    return pieces(spec, weight.dtype) if weight.ndim == 2 or not len(weight) else None
