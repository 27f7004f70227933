# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""Neighbor tensor product on the GPU by Triton; `contractions.py` makes the derivative ladder of three kernels.

A program is one node, a block of channels, one per thread, and one piece of the tile (`pieces.py`); one warp unless
`sdas_kernels.tuning` found otherwise. It goes through the node's
edges in their order and keeps in registers, one number per channel and thread, what it sums or what it multiplies:

    tiles        a piece of A_i; the coefficients take it to its rows of z after the last edge
    edge dot     the same piece of couplingᵀ z_i, made before the first edge; channels are summed across the warp
    to senders   rows m1 of one sender; couplingᵀ z_i is applied again for every edge, since z has fewer rows than the
                 tile has numbers

The coefficients are unrolled as constants, since registers cannot be indexed at run time and most coefficients are
zero. Channels are a block [heads, channels of a head], so that a sum over the channels of a head is one over an axis.
Nothing is added atomically: where blocks of channels or pieces share a result each writes its own part, and PyTorch
sums the parts.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels import tuning
from sdas_kernels.ops.neighbor_tensor_product import contractions
from sdas_kernels.ops.neighbor_tensor_product.pieces import sender_pieces, tile_pieces
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths
from sdas_kernels.triton_support import LAUNCH
from sdas_kernels.triton_tables import entry, size

MAX_DEGREE = 4
TILE_BUDGET = 81  # numbers of the tile per channel: all of it up to degree 2, any one block up to degree 4
TILE_BUDGET_F64 = 45  # a float64 takes two registers
SENDER_BUDGET = 256  # coefficients unrolled in the loop over edges


@triton.constexpr_function
def place_of(piece, r, q, axis):
    """Place in m1 or m2 of what a coefficient of a row of z multiplies."""
    return piece.pairs[piece.of_row[r][q][0]][axis]


@triton.jit
def _block(HEADS: tl.constexpr, PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """This program's heads `[heads]` and channels `[heads, channels of a head]`, with their masks."""
    splits: tl.constexpr = (PER_HEAD + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    heads = tl.program_id(1) // splits * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    within = tl.program_id(1) % splits * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    mask = (heads < HEADS)[:, None] & (within < PER_HEAD)[None, :]
    return heads, heads < HEADS, heads[:, None] * PER_HEAD + within[None, :], mask


@triton.jit
def _value(value, channel, mask, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """Rows m1 of a node."""
    rows = ()
    for a in tl.static_range(size(PIECE, "m1")):
        row = tl.load(value + entry(PIECE, "m1", a) * CHANNELS + channel, mask=mask, other=0.0)
        rows += (row.to(DTYPE),)
    return rows


@triton.jit
def _weights(weight, heads, head_mask, DEGREES: tl.constexpr, HEADS: tl.constexpr):
    """Of each degree, `[heads, 1]`."""
    weights = ()
    for l in tl.static_range(DEGREES):
        weights += (tl.load(weight + l * HEADS + heads, mask=head_mask, other=0.0)[:, None],)
    return weights


@triton.jit
def _harmonics(harmonics, PIECE: tl.constexpr):
    """Of each order m2 of the piece."""
    orders = ()
    for b in tl.static_range(size(PIECE, "m2")):
        orders += (tl.load(harmonics + entry(PIECE, "m2", b)),)
    return orders


@triton.jit
def _weighted(w, y, PIECE: tl.constexpr):
    """B[m2] = w[l2] Y[m2]."""
    weighted = ()
    for b in tl.static_range(size(PIECE, "m2")):
        weighted += (w[entry(PIECE, "l2", b)] * y[b],)
    return weighted


@triton.jit
def _weighted_step(w, w_step, y, y_step, PIECE: tl.constexpr):
    """The derivative of B along the steps."""
    weighted = ()
    for b in tl.static_range(size(PIECE, "m2")):
        weighted += (w_step[entry(PIECE, "l2", b)] * y[b] + w[entry(PIECE, "l2", b)] * y_step[b],)
    return weighted


@triton.jit
def _add_outer(tile, v, b, PIECE: tl.constexpr):
    """tile[m1, m2] + v[m1] B[m2]."""
    sums = ()
    for p in tl.static_range(size(PIECE, "pairs")):
        sums += (tile[p] + v[entry(PIECE, "pairs", p, 0)] * b[entry(PIECE, "pairs", p, 1)],)
    return sums


@triton.jit
def _uncouple(z, channel, mask, like, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """The piece of couplingᵀ z."""
    tile = ()
    for p in tl.static_range(size(PIECE, "pairs")):
        number = like
        for q in tl.static_range(size(PIECE, "of_pair", p)):
            row = tl.load(z + entry(PIECE, "of_pair", p, q, 0) * CHANNELS + channel, mask=mask, other=0.0)
            number += entry(PIECE, "of_pair", p, q, 1) * row.to(DTYPE)
        tile += (number,)
    return tile


@triton.jit
def _dot(tile, v, zero, PIECE: tl.constexpr):
    """D[m2] = Σ_m1 tile[m1, m2] v[m1]."""
    dots = ()
    for b in tl.static_range(size(PIECE, "m2")):
        total = zero
        for p in tl.static_range(size(PIECE, "pairs")):
            if entry(PIECE, "pairs", p, 1) == b:
                total += tile[p] * v[entry(PIECE, "pairs", p, 0)]
        dots += (total,)
    return dots


@triton.jit
def _add_at(sums, place: tl.constexpr, item):
    """The tuple with an item added at a place."""
    added = ()
    for k in tl.static_range(len(sums)):
        if k == place:
            added += (sums[k] + item,)
        else:
            added += (sums[k],)
    return added


@triton.jit
def _add_uncoupled(sums, z, b, channel, mask, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """sums[m1] + Σ_m2 (couplingᵀ z)[m1, m2] B[m2], a row of z at a time."""
    for r in tl.static_range(size(PIECE, "rows")):
        row = tl.load(z + entry(PIECE, "rows", r) * CHANNELS + channel, mask=mask, other=0.0).to(DTYPE)
        for q in tl.static_range(size(PIECE, "of_row", r)):
            b_row = entry(PIECE, "of_row", r, q, 1) * b[place_of(PIECE, r, q, 1)] * row
            sums = _add_at(sums, place_of(PIECE, r, q, 0), b_row)
    return sums


@triton.jit
def tiles(
    out_z, weight, weight_step, harmonics, harmonics_step, value, value_step, senders, row_ptr,
    PIECE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr,
    PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """A piece of z_i = coupling · Σ_e v_j ⊗ B_e. Grid: receivers, blocks of channels."""
    channels: tl.constexpr = HEADS * PER_HEAD
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = _block(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    zero = tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE)
    tile = (zero,) * size(PIECE, "pairs")
    for e in range(tl.load(row_ptr + node), tl.load(row_ptr + node + 1)):
        sent = tl.load(senders + e) * (M1 * channels)
        v = _value(value + sent, channel, mask, PIECE, channels, DTYPE)
        w = _weights(weight + e * (DEGREES * HEADS), heads, head_mask, DEGREES, HEADS)
        y = _harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)
        if STEP:
            w_step = _weights(weight_step + e * (DEGREES * HEADS), heads, head_mask, DEGREES, HEADS)
            y_step = _harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
            tile = _add_outer(tile, v, _weighted_step(w, w_step, y, y_step, PIECE), PIECE)
            v = _value(value_step + sent, channel, mask, PIECE, channels, DTYPE)
        tile = _add_outer(tile, v, _weighted(w, y, PIECE), PIECE)
    out = out_z + node * (ROWS * channels)
    for r in tl.static_range(size(PIECE, "rows")):
        total = zero
        for q in tl.static_range(size(PIECE, "of_row", r)):
            total += entry(PIECE, "of_row", r, q, 1) * tile[entry(PIECE, "of_row", r, q, 0)]
        tl.store(out + entry(PIECE, "rows", r) * channels + channel, total, mask=mask)


@triton.jit
def to_senders(
    out_value, z, weight, weight_step, harmonics, harmonics_step, receivers, sender_order, sender_ptr,
    PIECE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr,
    PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """Rows m1 of Σ_e couplingᵀ z_i · B_e over what a node sends. Grid: senders, blocks of channels."""
    channels: tl.constexpr = HEADS * PER_HEAD
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = _block(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    sums = (tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE),) * size(PIECE, "m1")
    for place in range(tl.load(sender_ptr + node), tl.load(sender_ptr + node + 1)):
        e = tl.load(sender_order + place)
        received = z + tl.load(receivers + e) * (ROWS * channels)
        w = _weights(weight + e * (DEGREES * HEADS), heads, head_mask, DEGREES, HEADS)
        y = _harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)
        if STEP:
            w_step = _weights(weight_step + e * (DEGREES * HEADS), heads, head_mask, DEGREES, HEADS)
            y_step = _harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
            b = _weighted_step(w, w_step, y, y_step, PIECE)
        else:
            b = _weighted(w, y, PIECE)
        sums = _add_uncoupled(sums, received, b, channel, mask, PIECE, channels, DTYPE)
    out = out_value + node * (M1 * channels)
    for a in tl.static_range(size(PIECE, "m1")):
        tl.store(out + entry(PIECE, "m1", a) * channels + channel, sums[a], mask=mask)


@triton.jit(do_not_specialize=["edges"])
def edge_dot(
    out_weight, out_weight_step, out_harmonics, z, weight, weight_step, harmonics, harmonics_step, value, value_step,
    senders, row_ptr, edges,
    PIECE: tl.constexpr, PLACE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr,
    HEADS: tl.constexpr, PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
    DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """With D_e = (couplingᵀ z_i)ᵀ v_j: by weight Σ D Y, by harmonics Σ w D. Grid: receivers, blocks of channels.

    `PLACE` is the piece's among the pieces. Parts of the results are `[pieces, splits of a head, E, L2+1, K]` and
    `[pieces, blocks of channels, E, M2]`.
    """
    channels: tl.constexpr = HEADS * PER_HEAD
    splits: tl.constexpr = (PER_HEAD + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = _block(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    weight_part = (PLACE * splits + tl.program_id(1) % splits).to(tl.int64) * edges
    harmonics_part = (PLACE * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * edges
    zero = tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE)
    tile = _uncouple(z + node * (ROWS * channels), channel, mask, zero, PIECE, channels, DTYPE)
    for e in range(tl.load(row_ptr + node), tl.load(row_ptr + node + 1)):
        sent = tl.load(senders + e) * (M1 * channels)
        of_heads = e * (DEGREES * HEADS)
        d = _dot(tile, _value(value + sent, channel, mask, PIECE, channels, DTYPE), zero, PIECE)
        w = _weights(weight + of_heads, heads, head_mask, DEGREES, HEADS)
        y = _harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)
        if STEP:
            d_step = _dot(tile, _value(value_step + sent, channel, mask, PIECE, channels, DTYPE), zero, PIECE)
            w_step = _weights(weight_step + of_heads, heads, head_mask, DEGREES, HEADS)
            y_step = _harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
        to_weight = (weight_part + e) * (DEGREES * HEADS) + heads
        for l in tl.static_range(DEGREES):
            direct = zero
            crossed = zero
            for b in tl.static_range(size(PIECE, "m2")):
                if entry(PIECE, "l2", b) == l:
                    direct += d[b] * y[b]
                    if STEP:
                        crossed += d_step[b] * y[b] + d[b] * y_step[b]
            if STEP:
                tl.store(out_weight + to_weight + l * HEADS, tl.sum(crossed, 1), mask=head_mask)
                tl.store(out_weight_step + to_weight + l * HEADS, tl.sum(direct, 1), mask=head_mask)
            else:
                tl.store(out_weight + to_weight + l * HEADS, tl.sum(direct, 1), mask=head_mask)
        for b in tl.static_range(size(PIECE, "m2")):
            by_harmonics = d[b] * w[entry(PIECE, "l2", b)]
            if STEP:
                by_harmonics = d[b] * w_step[entry(PIECE, "l2", b)] + d_step[b] * w[entry(PIECE, "l2", b)]
            to_harmonics = (harmonics_part + e) * (DEGREES * DEGREES) + entry(PIECE, "m2", b)
            tl.store(out_harmonics + to_harmonics, tl.sum(tl.sum(by_harmonics, 1), 0))


class _Job:
    """Sizes, graph and pieces, common to the kernels of one call."""

    def __init__(self, o: Operands, index: list[Tensor], paths: Paths) -> None:
        self.o, self.index, self.paths = o, index, paths
        heads, per_head = o.attention.shape[1], o.value.shape[2] // o.attention.shape[1]
        self.launch = tuning.launch("neighbor_tensor_product", o.value.device)
        block = min(self.launch.size, triton.next_power_of_2(per_head))
        self.constants = {
            "M1": o.value.shape[1],
            "DEGREES": paths.lmax_harmonics + 1,
            "ROWS": paths.rows,
            "HEADS": heads,
            "PER_HEAD": per_head,
            "BLOCK_HEADS": min(self.launch.size // block, triton.next_power_of_2(heads)),
            "BLOCK_CHANNELS": block,
            "DTYPE": tl.float64 if o.value.dtype == torch.float64 else tl.float32,
        }
        self.splits = triton.cdiv(per_head, block)
        self.grid = (len(o.value), triton.cdiv(heads, self.constants["BLOCK_HEADS"]) * self.splits)
        self.tile_pieces = tile_pieces(paths, TILE_BUDGET_F64 if o.value.dtype == torch.float64 else TILE_BUDGET)

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether a block of the tile fits in registers."""
        return max(paths.lmax_in, paths.lmax_harmonics) <= MAX_DEGREE

    def tiles(self, **operands: Tensor) -> Tensor:
        """`[N, rows, C]`."""
        out = self.o.value.new_empty(len(self.o.value), self.paths.rows, self.o.value.shape[2])
        for piece in self.tile_pieces:
            self._run(tiles, out, *_with_steps(operands, "weight", "harmonics", "value"),
                      self.index[1], self.index[2], PIECE=piece, STEP="weight_step" in operands)  # fmt: skip
        return out

    def to_senders(self, **operands: Tensor) -> Tensor:
        """`[N, M1, C]`."""
        out = torch.empty_like(self.o.value)
        for piece in sender_pieces(self.paths, SENDER_BUDGET):
            self._run(to_senders, out, operands["z"], *_with_steps(operands, "weight", "harmonics"),
                      self.index[0], *self.index[3:], PIECE=piece, STEP="weight_step" in operands)  # fmt: skip
        return out

    def edge_dot(self, **operands: Tensor) -> tuple[Tensor, ...]:
        """By weight `[E, L2+1, K]`, by harmonics `[E, M2]`, and with steps by weight_step `[E, L2+1, K]`."""
        weight, harmonics, step = operands["weight"], operands["harmonics"], "weight_step" in operands
        pieces = len(self.tile_pieces)
        by_weight = weight.new_empty(pieces * self.splits, *weight.shape)
        by_weight_step = torch.empty_like(by_weight) if step else by_weight
        whole = all(len(piece.m2) == harmonics.shape[1] for piece in self.tile_pieces)
        make = harmonics.new_empty if whole else harmonics.new_zeros
        by_harmonics = make(pieces * self.grid[1], *harmonics.shape)
        for place, piece in enumerate(self.tile_pieces):
            self._run(edge_dot, by_weight, by_weight_step, by_harmonics, operands["z"],
                      *_with_steps(operands, "weight", "harmonics", "value"), self.index[1], self.index[2],
                      len(weight), PIECE=piece, PLACE=place, STEP=step)  # fmt: skip
        parts = (by_weight, by_harmonics, by_weight_step) if step else (by_weight, by_harmonics)
        return tuple(part[0] if len(part) == 1 else part.sum(0) for part in parts)

    def _run(self, kernel, *arguments, **constants) -> None:
        if self.grid[0] and self.grid[1]:
            with torch.cuda.device_of(self.o.value):
                options = LAUNCH | {"num_warps": self.launch.num_warps}
                kernel[self.grid](*arguments, **constants, **self.constants, **options)


def _with_steps(operands: dict[str, Tensor], *names: str) -> list[Tensor]:
    """Each operand and its step, or once more the operand where there is no step: a kernel then does not read it."""
    return [operands.get(key, operands[name]) for name in names for key in (name, f"{name}_step")]


forward = partial(contractions.forward, _Job)
backward = partial(contractions.backward, _Job)
double_backward = partial(contractions.double_backward, _Job)
