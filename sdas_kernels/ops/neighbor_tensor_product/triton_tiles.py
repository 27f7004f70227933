# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""What the Triton kernels of the neighbor tensor product are made of.

A number of a thread belongs to a channel: tiles are `[heads, channels of a head]`, weights `[heads, 1]`. A piece of the
tile (`pieces.py`) says which orders m1 and m2 meet in it and which coefficients lead to and from its rows of z.
"""

import triton
import triton.language as tl

from sdas_kernels.triton_tables import entry, size


@triton.constexpr_function
def place_of(piece, r, q, axis):
    """Place in m1 or m2 of what a coefficient of a row of z multiplies."""
    return piece.pairs[piece.of_row[r][q][0]][axis]


@triton.jit
def block_of(HEADS: tl.constexpr, PER_HEAD: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """This program's heads `[heads]` and channels `[heads, channels of a head]`, with their masks."""
    splits: tl.constexpr = (PER_HEAD + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    heads = tl.program_id(1) // splits * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    within = tl.program_id(1) % splits * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    mask = (heads < HEADS)[:, None] & (within < PER_HEAD)[None, :]
    return heads, heads < HEADS, heads[:, None] * PER_HEAD + within[None, :], mask


@triton.jit
def load_value(value, channel, mask, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """Rows m1 of a node."""
    rows = ()
    for a in tl.static_range(size(PIECE, "m1")):
        row = tl.load(value + entry(PIECE, "m1", a) * CHANNELS + channel, mask=mask, other=0.0)
        rows += (row.to(DTYPE),)
    return rows


@triton.jit
def factors(
    attention, attention_step, radial, radial_step, gain, gain_step, edge, radial_size, zero, heads, head_mask,
    DEGREES: tl.constexpr, HEADS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Of an edge, α and Σ_n R_n W_n of each degree, and their steps; W is `[L2+1, n, K]`. Weights are their products.

    The loop over n stays one when compiled: unrolled, all of W would move out of the loop over edges into registers.
    """
    alpha = tl.load(attention + edge * HEADS + heads, mask=head_mask, other=0.0)
    alpha_step = alpha
    if STEP:
        alpha_step = tl.load(attention_step + edge * HEADS + heads, mask=head_mask, other=0.0)
    gains = (zero,) * DEGREES
    gains_step = (zero,) * DEGREES
    for n in range(radial_size):
        r = tl.load(radial + edge * radial_size + n)
        r_step = r
        if STEP:
            r_step = tl.load(radial_step + edge * radial_size + n)
        sums = ()
        sums_step = ()
        for l in tl.static_range(DEGREES):
            place = (l * radial_size + n) * HEADS + heads
            w = tl.load(gain + place, mask=head_mask, other=0.0)
            sums += (gains[l] + r * w,)
            if STEP:
                w_step = tl.load(gain_step + place, mask=head_mask, other=0.0)
                sums_step += (gains_step[l] + r_step * w + r * w_step,)
            else:
                sums_step += (gains_step[l],)
        gains = sums
        gains_step = sums_step
    return alpha, gains, alpha_step, gains_step


@triton.jit
def scaled(factor, rows):
    """Each row times a factor."""
    products = ()
    for l in tl.static_range(len(rows)):
        products += (factor * rows[l],)
    return products


@triton.jit
def plus_scaled(rows, factor, others):
    """Rows, with others, times a factor, added."""
    sums = ()
    for l in tl.static_range(len(rows)):
        sums += (rows[l] + factor * others[l],)
    return sums


@triton.jit
def load_harmonics(harmonics, PIECE: tl.constexpr):
    """Of each order m2 of the piece."""
    orders = ()
    for b in tl.static_range(size(PIECE, "m2")):
        orders += (tl.load(harmonics + entry(PIECE, "m2", b)),)
    return orders


@triton.jit
def weighted(w, y, PIECE: tl.constexpr):
    """B[m2] = w[l2] Y[m2]."""
    weighted = ()
    for b in tl.static_range(size(PIECE, "m2")):
        weighted += (w[entry(PIECE, "l2", b)] * y[b],)
    return weighted


@triton.jit
def weighted_step(w, w_step, y, y_step, PIECE: tl.constexpr):
    """The derivative of B along the steps."""
    weighted = ()
    for b in tl.static_range(size(PIECE, "m2")):
        weighted += (w_step[entry(PIECE, "l2", b)] * y[b] + w[entry(PIECE, "l2", b)] * y_step[b],)
    return weighted


@triton.jit
def add_outer(tile, v, b, PIECE: tl.constexpr):
    """tile[m1, m2] + v[m1] B[m2]."""
    sums = ()
    for p in tl.static_range(size(PIECE, "pairs")):
        sums += (tile[p] + v[entry(PIECE, "pairs", p, 0)] * b[entry(PIECE, "pairs", p, 1)],)
    return sums


@triton.jit
def uncouple(z, channel, mask, like, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
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
def dot(tile, v, zero, PIECE: tl.constexpr):
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
def add_at(sums, place: tl.constexpr, item):
    """The tuple with an item added at a place."""
    added = ()
    for k in tl.static_range(len(sums)):
        if k == place:
            added += (sums[k] + item,)
        else:
            added += (sums[k],)
    return added


@triton.jit
def add_uncoupled(sums, z, b, channel, mask, PIECE: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    """sums[m1] + Σ_m2 (couplingᵀ z)[m1, m2] B[m2], a row of z at a time."""
    for r in tl.static_range(size(PIECE, "rows")):
        row = tl.load(z + entry(PIECE, "rows", r) * CHANNELS + channel, mask=mask, other=0.0).to(DTYPE)
        for q in tl.static_range(size(PIECE, "of_row", r)):
            b_row = b[place_of(PIECE, r, q, 1)] * row  # the coefficient first would stay in registers, times b
            sums = add_at(sums, place_of(PIECE, r, q, 0), entry(PIECE, "of_row", r, q, 1) * b_row)
    return sums
