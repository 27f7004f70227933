# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""Neighbor tensor product on the GPU by Triton; `contractions.py` makes the derivative ladder of three kernels.

A program is one node, a block of channels, one per thread, and one piece of the tile (`pieces.py`); one warp unless
`sdas_kernels.tuning` found otherwise. It goes through the node's
edges in their order and keeps in registers, one number per channel and thread, what it sums or what it multiplies:

    tiles        a piece of A_i; the coefficients take it to its rows of z after the last edge
    edge dot     the same piece of couplingᵀ z_i, made before the first edge; channels are summed across the warp
    to senders   rows m1 of one sender; couplingᵀ z_i is applied again for every edge, since z has fewer rows than the
                 tile has numbers

The weights α Σ_n R_n W_n of an edge are formed in registers, for each kernel anew, and written nowhere.

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
from sdas_kernels.ops.neighbor_tensor_product.triton_tiles import (
    add_outer,
    add_uncoupled,
    block_of,
    dot,
    factors,
    load_harmonics,
    load_value,
    plus_scaled,
    scaled,
    uncouple,
    weighted,
    weighted_step,
)
from sdas_kernels.paths import Paths
from sdas_kernels.triton_support import LAUNCH
from sdas_kernels.triton_tables import entry, size

MAX_DEGREE = 4
TILE_BUDGET = 81  # numbers of the tile per channel: all of it up to degree 2, any one block up to degree 4
TILE_BUDGET_F64 = 45  # a float64 takes two registers
SENDER_BUDGET = 256  # coefficients unrolled in the loop over edges


@triton.jit(do_not_specialize=["radial_size"])
def tiles(
    out_z, attention, attention_step, radial, radial_step, gain, gain_step, harmonics, harmonics_step, value,
    value_step, senders, row_ptr, radial_size,
    PIECE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr,
    PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """A piece of z_i = coupling · Σ_e v_j ⊗ B_e. Grid: receivers, blocks of channels."""
    channels: tl.constexpr = HEADS * PER_HEAD
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = block_of(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    zero = tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE)
    tile = (zero,) * size(PIECE, "pairs")
    for e in range(tl.load(row_ptr + node), tl.load(row_ptr + node + 1)):
        sent = tl.load(senders + e) * (M1 * channels)
        alpha, g, alpha_step, g_step = factors(
            attention, attention_step, radial, radial_step, gain, gain_step, e, radial_size,
            tl.zeros((BLOCK_HEADS, 1), DTYPE), heads[:, None], head_mask[:, None], DEGREES, HEADS, STEP,
        )  # fmt: skip
        w = scaled(alpha, g)
        v = load_value(value + sent, channel, mask, PIECE, channels, DTYPE)
        y = load_harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)
        if STEP:
            w_step = plus_scaled(scaled(alpha_step, g), alpha, g_step)
            y_step = load_harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
            tile = add_outer(tile, v, weighted_step(w, w_step, y, y_step, PIECE), PIECE)
            v = load_value(value_step + sent, channel, mask, PIECE, channels, DTYPE)
        tile = add_outer(tile, v, weighted(w, y, PIECE), PIECE)
    out = out_z + node * (ROWS * channels)
    for r in tl.static_range(size(PIECE, "rows")):
        total = zero
        for q in tl.static_range(size(PIECE, "of_row", r)):
            total += entry(PIECE, "of_row", r, q, 1) * tile[entry(PIECE, "of_row", r, q, 0)]
        tl.store(out + entry(PIECE, "rows", r) * channels + channel, total, mask=mask)


@triton.jit(do_not_specialize=["radial_size"])
def to_senders(
    out_value, z, attention, attention_step, radial, radial_step, gain, gain_step, harmonics, harmonics_step,
    receivers, sender_order, sender_ptr, radial_size,
    PIECE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr,
    PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """Rows m1 of Σ_e couplingᵀ z_i · B_e over what a node sends. Grid: senders, blocks of channels."""
    channels: tl.constexpr = HEADS * PER_HEAD
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = block_of(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    sums = (tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE),) * size(PIECE, "m1")
    for place in range(tl.load(sender_ptr + node), tl.load(sender_ptr + node + 1)):
        e = tl.load(sender_order + place)
        received = z + tl.load(receivers + e) * (ROWS * channels)
        y = load_harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)  # after the weights they take more registers
        alpha, g, alpha_step, g_step = factors(
            attention, attention_step, radial, radial_step, gain, gain_step, e, radial_size,
            tl.zeros((BLOCK_HEADS, 1), DTYPE), heads[:, None], head_mask[:, None], DEGREES, HEADS, STEP,
        )  # fmt: skip
        w = scaled(alpha, g)
        if STEP:
            w_step = plus_scaled(scaled(alpha_step, g), alpha, g_step)
            y_step = load_harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
            b = weighted_step(w, w_step, y, y_step, PIECE)
        else:
            b = weighted(w, y, PIECE)
        sums = add_uncoupled(sums, received, b, channel, mask, PIECE, channels, DTYPE)
    out = out_value + node * (M1 * channels)
    for a in tl.static_range(size(PIECE, "m1")):
        tl.store(out + entry(PIECE, "m1", a) * channels + channel, sums[a], mask=mask)


@triton.jit(do_not_specialize=["radial_size", "edges"])
def edge_dot(
    out_attention, out_gain, out_gain_step, out_harmonics, z, attention, attention_step, radial, radial_step, gain,
    gain_step, harmonics, harmonics_step, value, value_step, senders, row_ptr, radial_size, edges,
    PIECE: tl.constexpr, PLACE: tl.constexpr, M1: tl.constexpr, DEGREES: tl.constexpr, ROWS: tl.constexpr,
    HEADS: tl.constexpr, PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
    DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """With D_e = (couplingᵀ z_i)ᵀ v_j: by the factors of the weight from Σ D Y, by harmonics Σ w D.

    Grid: receivers, blocks of channels. `PLACE` is the piece's among the pieces. Parts of the results are `[pieces,
    splits of a head, E, K]`, `[.., E, L2+1, K]` and `[pieces, blocks of channels, E, M2]`.
    """
    channels: tl.constexpr = HEADS * PER_HEAD
    splits: tl.constexpr = (PER_HEAD + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    node = tl.program_id(0).to(tl.int64)
    heads, head_mask, channel, mask = block_of(HEADS, PER_HEAD, BLOCK_HEADS, BLOCK_CHANNELS)
    weight_part = (PLACE * splits + tl.program_id(1) % splits).to(tl.int64) * edges
    harmonics_part = (PLACE * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * edges
    zero = tl.zeros((BLOCK_HEADS, BLOCK_CHANNELS), DTYPE)
    tile = uncouple(z + node * (ROWS * channels), channel, mask, zero, PIECE, channels, DTYPE)
    for e in range(tl.load(row_ptr + node), tl.load(row_ptr + node + 1)):
        sent = tl.load(senders + e) * (M1 * channels)
        d = dot(tile, load_value(value + sent, channel, mask, PIECE, channels, DTYPE), zero, PIECE)
        alpha, g, alpha_step, g_step = factors(
            attention, attention_step, radial, radial_step, gain, gain_step, e, radial_size,
            tl.zeros((BLOCK_HEADS, 1), DTYPE), heads[:, None], head_mask[:, None], DEGREES, HEADS, STEP,
        )  # fmt: skip
        w = scaled(alpha, g)
        y = load_harmonics(harmonics + e * (DEGREES * DEGREES), PIECE)
        if STEP:
            d_step = dot(tile, load_value(value_step + sent, channel, mask, PIECE, channels, DTYPE), zero, PIECE)
            w_step = plus_scaled(scaled(alpha_step, g), alpha, g_step)
            y_step = load_harmonics(harmonics_step + e * (DEGREES * DEGREES), PIECE)
        by_attention = zero
        for l in tl.static_range(DEGREES):
            direct = zero
            crossed = zero
            for b in tl.static_range(size(PIECE, "m2")):
                if entry(PIECE, "l2", b) == l:
                    direct += d[b] * y[b]
                    if STEP:
                        crossed += d_step[b] * y[b] + d[b] * y_step[b]
            to_gain = ((weight_part + e) * DEGREES + l) * HEADS + heads
            if STEP:
                by_attention += direct * g_step[l] + crossed * g[l]
                tl.store(out_gain + to_gain, tl.sum(direct * alpha_step + crossed * alpha, 1), mask=head_mask)
                tl.store(out_gain_step + to_gain, tl.sum(direct * alpha, 1), mask=head_mask)
            else:
                by_attention += direct * g[l]
                tl.store(out_gain + to_gain, tl.sum(direct * alpha, 1), mask=head_mask)
        to_attention = (weight_part + e) * HEADS + heads
        tl.store(out_attention + to_attention, tl.sum(by_attention, 1), mask=head_mask)
        for b in tl.static_range(size(PIECE, "m2")):
            by_harmonics = d[b] * w[entry(PIECE, "l2", b)]
            if STEP:
                by_harmonics = d[b] * w_step[entry(PIECE, "l2", b)] + d_step[b] * w[entry(PIECE, "l2", b)]
            to_harmonics = (harmonics_part + e) * (DEGREES * DEGREES) + entry(PIECE, "m2", b)
            tl.store(out_harmonics + to_harmonics, tl.sum(tl.sum(by_harmonics, 1), 0))


class _Job:
    """Operands and their steps, graph and pieces, common to the kernels of one call."""

    def __init__(self, o: Operands, step: Operands | None, index: list[Tensor], paths: Paths) -> None:
        self.o, self.step, self.index, self.paths = o, step, index, paths
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
            "STEP": step is not None,
        }
        self.splits = triton.cdiv(per_head, block)
        self.grid = (len(o.value), triton.cdiv(heads, self.constants["BLOCK_HEADS"]) * self.splits)
        self.tile_pieces = tile_pieces(paths, TILE_BUDGET_F64 if o.value.dtype == torch.float64 else TILE_BUDGET)
        moved = o if step is None else step  # without steps a kernel does not read them
        gains = (t.permute(1, 2, 0).contiguous() for t in (o.radial_gain, moved.radial_gain))
        pairs = (o.attention, moved.attention), (o.radial, moved.radial), gains, (o.harmonics, moved.harmonics)
        self.of_edges = [t for pair in pairs for t in pair]
        self.values = o.value, moved.value

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether a block of the tile fits in registers."""
        return max(paths.lmax_in, paths.lmax_harmonics) <= MAX_DEGREE

    def tiles(self) -> Tensor:
        """`[N, rows, C]`."""
        value = self.o.value
        out = value.new_empty(len(value), self.paths.rows, value.shape[2])
        for piece in self.tile_pieces:
            self._run(tiles, out, *self.of_edges, *self.values, *self.index[1:3], self.o.radial.shape[1], PIECE=piece)
        return out

    def to_senders(self, z: Tensor) -> Tensor:
        """`[N, M1, C]`."""
        out = torch.empty_like(self.o.value)
        for piece in sender_pieces(self.paths, SENDER_BUDGET):
            graph = self.index[0], *self.index[3:]
            self._run(to_senders, out, z, *self.of_edges, *graph, self.o.radial.shape[1], PIECE=piece)
        return out

    def edge_dot(self, z: Tensor) -> tuple[Tensor, ...]:
        """By attention `[E, K]`, by gain `[E, L2+1, K]`, by harmonics `[E, M2]`, with steps by gain along them."""
        attention, harmonics, step = self.o.attention, self.o.harmonics, self.step is not None
        pieces, (edges, heads) = len(self.tile_pieces), attention.shape
        by_attention = attention.new_empty(pieces * self.splits, edges, heads)
        by_gain = attention.new_empty(pieces * self.splits, edges, self.constants["DEGREES"], heads)
        by_gain_step = torch.empty_like(by_gain) if step else by_gain
        whole = all(len(piece.m2) == harmonics.shape[1] for piece in self.tile_pieces)
        make = harmonics.new_empty if whole else harmonics.new_zeros
        by_harmonics = make(pieces * self.grid[1], *harmonics.shape)
        for place, piece in enumerate(self.tile_pieces):
            self._run(edge_dot, by_attention, by_gain, by_gain_step, by_harmonics, z, *self.of_edges, *self.values,
                      *self.index[1:3], self.o.radial.shape[1], edges, PIECE=piece, PLACE=place)  # fmt: skip
        parts = (by_attention, by_gain, by_harmonics, *([by_gain_step] if step else []))
        return tuple(part[0] if len(part) == 1 else part.sum(0) for part in parts)

    def _run(self, kernel, *arguments, **constants) -> None:
        if self.grid[0] and self.grid[1]:
            with torch.cuda.device_of(self.o.value):
                options = LAUNCH | {"num_warps": self.launch.num_warps}
                kernel[self.grid](*arguments, **constants, **self.constants, **options)


forward = partial(contractions.forward, _Job)
backward = partial(contractions.backward, _Job)
double_backward = partial(contractions.double_backward, _Job)
