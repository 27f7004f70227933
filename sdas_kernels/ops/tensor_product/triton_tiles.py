# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""What the Triton kernels of the tensor product are made of: rows of operands, contractions, places of results.

A row is a tile of one component of an entry, samples times channels, one number per thread. A piece (`pieces.py`) says
where rows lie and which coefficients join them; `g` counts its groups, `p` the paths of a group.

Triton 3.6 takes two calls for one where their numbers are alike in all and only the lengths of tuples differ: what is
given several tuples is given a constant, a piece or COUNT, that says how long they are.
"""

import triton
import triton.language as tl

from sdas_kernels.triton_tables import entry, size


@triton.jit
def block_of(first, batch, MUL: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sample and channel of each thread of a program, and whether they exist.

    One axis for both: with two, the order of axes leaves a choice of layouts, and conversions between them.
    """
    thread = tl.arange(0, BLOCK_B * BLOCK_C)
    sample = first + thread // BLOCK_C
    channel = tl.program_id(1) * BLOCK_C + thread % BLOCK_C
    return sample, channel, (sample < batch) & (channel < MUL)


@triton.jit
def first_rows(
    x, y, sample, channel, mask, PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DTYPE: tl.constexpr
):
    """Rows of the first operand."""
    rows = ()
    for r in tl.static_range(size(PIECE, "first")):
        at = entry(PIECE, "first", r, 0) + channel * entry(PIECE, "first", r, 1)
        if entry(PIECE, "first_is_x"):
            row = tl.load(x + sample * DIM1 + at, mask=mask, other=0.0)
        else:
            row = tl.load(y + sample * DIM2 + at, mask=mask, other=0.0)
        rows += (row.to(DTYPE),)
    return rows


@triton.jit
def second_rows(
    x, y, sample, channel, member, mask,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Rows of the second operand, alike for all channels where it is uniform."""
    rows = ()
    for r in tl.static_range(size(PIECE, "second")):
        at = second_place(channel, member, PIECE, r)
        if entry(PIECE, "first_is_x"):
            row = tl.load(y + sample * DIM2 + at, mask=mask, other=0.0)
        else:
            row = tl.load(x + sample * DIM1 + at, mask=mask, other=0.0)
        rows += (row.to(DTYPE),)
    return rows


@triton.jit
def second_place(channel, member, PIECE: tl.constexpr, r: tl.constexpr):
    """Of a row of the second operand, in a sample."""
    if entry(PIECE, "uniform"):
        return entry(PIECE, "second", r, 0) + member * entry(PIECE, "second", r, 1) + channel * 0
    else:
        return entry(PIECE, "second", r, 0) + channel * entry(PIECE, "second", r, 1)


@triton.jit
def result_place(sample, channel, member, batch, PIECE: tl.constexpr, g: tl.constexpr):
    """Of component 0 of a group's result."""
    at = entry(PIECE, "out", g, 0) + entry(PIECE, "out", g, 1) * batch.to(tl.int64)
    at += sample * entry(PIECE, "out", g, 2) + channel * entry(PIECE, "out", g, 3)
    return at + member * entry(PIECE, "out", g, 5)


@triton.jit
def gradient_rows(
    grad, sample, channel, member, batch, mask, PIECE: tl.constexpr, g: tl.constexpr, DTYPE: tl.constexpr
):
    """Components of the gradient by a group's result."""
    at = result_place(sample, channel, member, batch, PIECE, g)
    rows = ()
    for k in tl.static_range(entry(PIECE, "out", g, 7)):
        rows += (tl.load(grad + at + k * entry(PIECE, "out", g, 4), mask=mask, other=0.0).to(DTYPE),)
    return rows


@triton.jit
def weight_place(sample, channel, member, PIECE: tl.constexpr, g: tl.constexpr, p: tl.constexpr, ROW: tl.constexpr):
    """Of a path's weight; ROW is 0 where all samples share it."""
    at = entry(PIECE, "path", g, p, 2) + channel * entry(PIECE, "path", g, p, 3)
    return at + member * entry(PIECE, "path", g, p, 4) + sample * ROW


@triton.jit
def load_weight(
    weight, sample, channel, member, mask, otherwise,
    PIECE: tl.constexpr, g: tl.constexpr, p: tl.constexpr, ROW: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """A path's weight, or `otherwise` where it has none."""
    w = otherwise
    if entry(PIECE, "path", g, p, 2) >= 0:
        at = weight_place(sample, channel, member, PIECE, g, p, ROW)
        w = tl.load(weight + at, mask=mask, other=0.0).to(DTYPE)
    return w


@triton.jit
def contract(
    outer, inner, zero, OUTER: tl.constexpr, INNER: tl.constexpr,
    PIECE: tl.constexpr, FIELD: tl.constexpr, g: tl.constexpr, p: tl.constexpr,
):  # fmt: skip
    """Σ outer (Σ C inner) for each component, of factors that begin at rows OUTER and INNER."""
    sums = ()
    for r in tl.static_range(size(PIECE, FIELD, g, p)):
        total = zero
        for q in tl.static_range(size(PIECE, FIELD, g, p, r)):
            factor = zero
            for t in tl.static_range(size(PIECE, FIELD, g, p, r, q, 1)):
                factor += (
                    entry(PIECE, FIELD, g, p, r, q, 1, t, 1) * inner[INNER + entry(PIECE, FIELD, g, p, r, q, 1, t, 0)]
                )
            total += factor * outer[OUTER + entry(PIECE, FIELD, g, p, r, q, 0)]
        sums += (total,)
    return sums


@triton.jit
def scaled(factor, rows, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Some of the rows, times a factor."""
    products = ()
    for r in tl.static_range(COUNT):
        products += (factor * rows[FIRST + r],)
    return products


@triton.jit
def plus_scaled(rows, factor, others, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Rows, with so many others, times a factor, added to those from FIRST on."""
    sums = ()
    for r in tl.static_range(len(rows)):
        if r >= FIRST and r < FIRST + COUNT:
            sums += (rows[r] + factor * others[r - FIRST],)
        else:
            sums += (rows[r],)
    return sums


@triton.jit
def plus(rows, others, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Rows, with so many others added to those from FIRST on."""
    sums = ()
    for r in tl.static_range(len(rows)):
        if r >= FIRST and r < FIRST + COUNT:
            sums += (rows[r] + others[r - FIRST],)
        else:
            sums += (rows[r],)
    return sums


@triton.jit
def dot(total, rows, others, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """total + Σ rows others, so many, the rows from FIRST on."""
    for r in tl.static_range(COUNT):
        total += rows[FIRST + r] * others[r]
    return total


@triton.jit
def add_product(
    z, a, a_step, s, s_step, w, w_step, zero, I: tl.constexpr, J: tl.constexpr, Z: tl.constexpr,
    PIECE: tl.constexpr, g: tl.constexpr, p: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """z with a path's product added, or its derivative along the steps; the path's rows begin at I, J and Z."""
    count: tl.constexpr = size(PIECE, "to_out", g, p)
    if STEP:
        z = plus_scaled(z, w_step, contract(a, s, zero, I, J, PIECE, "to_out", g, p), Z, count)
        z = plus_scaled(z, w, contract(a_step, s, zero, I, J, PIECE, "to_out", g, p), Z, count)
        z = plus_scaled(z, w, contract(a, s_step, zero, I, J, PIECE, "to_out", g, p), Z, count)
    else:
        z = plus_scaled(z, w, contract(a, s, zero, I, J, PIECE, "to_out", g, p), Z, count)
    return z


@triton.jit
def add_group(
    z, a, a_step, s, s_step, weight, weight_step, sample, channel, member, mask, zero,
    Z: tl.constexpr, PIECE: tl.constexpr, g: tl.constexpr, ROW: tl.constexpr, DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """z with the products of one member of a group's paths added, or their derivative along the steps.

    The group's rows begin at Z.
    """
    for p in tl.static_range(size(PIECE, "path", g)):
        w = load_weight(weight, sample, channel, member, mask, zero + 1.0, PIECE, g, p, ROW, DTYPE)
        w_step = zero
        if STEP:
            w_step = load_weight(weight_step, sample, channel, member, mask, zero, PIECE, g, p, ROW, DTYPE)
        z = add_product(z, a, a_step, s, s_step, w, w_step, zero,
                        entry(PIECE, "path", g, p, 0), entry(PIECE, "path", g, p, 1), Z,
                        PIECE, g, p, STEP)  # fmt: skip
    return z


@triton.jit
def store_result(
    out, z, sample, channel, member, batch, mask, PIECE: tl.constexpr, g: tl.constexpr, PART: tl.constexpr
):
    """A group's result, in its part; PART is the size of a sample in a part."""
    at = result_place(sample, channel, member, batch, PIECE, g)
    at += batch.to(tl.int64) * (entry(PIECE, "out", g, 6) * PART)
    for k in tl.static_range(len(z)):
        tl.store(out + at + k * entry(PIECE, "out", g, 4), z[k], mask=mask)


@triton.jit
def add_to_first(
    by_a, g_rows, s, s_step, w, w_step, zero,
    I: tl.constexpr, J: tl.constexpr, PIECE: tl.constexpr, g: tl.constexpr, p: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The first operand's gradient with a path's added."""
    count: tl.constexpr = size(PIECE, "to_first", g, p)
    weighted = scaled(w, g_rows, 0, len(g_rows))
    if STEP:
        by_a = plus(by_a, contract(weighted, s_step, zero, 0, J, PIECE, "to_first", g, p), I, count)
        weighted = scaled(w_step, g_rows, 0, len(g_rows))
    return plus(by_a, contract(weighted, s, zero, 0, J, PIECE, "to_first", g, p), I, count)


@triton.jit
def add_to_second(by_s, h, h_step, w, w_step, J: tl.constexpr, COUNT: tl.constexpr, STEP: tl.constexpr):
    """The second operand's gradient with a path's added; without steps h_step is h."""
    by_s = plus_scaled(by_s, w, h_step, J, COUNT)
    if STEP:
        by_s = plus_scaled(by_s, w_step, h, J, COUNT)
    return by_s


@triton.jit
def add_to_weight(total, h, h_step, s, s_step, J: tl.constexpr, COUNT: tl.constexpr, STEP: tl.constexpr):
    """A number with the gradient by a path's weight added; without steps h_step is h."""
    total = dot(total, s, h_step, J, COUNT)
    if STEP:
        total = dot(total, s_step, h, J, COUNT)
    return total


@triton.jit
def to_second_and_weight(
    by_s, by_weight, a, a_step, g_rows, s, s_step, w, w_step, sample, channel, member, mask, zero,
    Z: tl.constexpr, PIECE: tl.constexpr, g: tl.constexpr, p: tl.constexpr, ROW: tl.constexpr, STEP: tl.constexpr,
    TO_SECOND: tl.constexpr, TO_WEIGHT: tl.constexpr,
):  # fmt: skip
    """The second operand's gradient with a path's added, and the path's gradient by a weight per sample stored.

    The group's gradient begins at row Z of `g_rows`.
    """
    count: tl.constexpr = size(PIECE, "to_second", g, p)
    h = contract(g_rows, a, zero, Z, entry(PIECE, "path", g, p, 0), PIECE, "to_second", g, p)
    h_step = h
    if STEP:
        h_step = contract(g_rows, a_step, zero, Z, entry(PIECE, "path", g, p, 0), PIECE, "to_second", g, p)
    if TO_SECOND:
        by_s = add_to_second(by_s, h, h_step, w, w_step, entry(PIECE, "path", g, p, 1), count, STEP)
    if TO_WEIGHT and entry(PIECE, "path", g, p, 2) >= 0:
        total = add_to_weight(zero, h, h_step, s, s_step, entry(PIECE, "path", g, p, 1), count, STEP)
        tl.store(by_weight + weight_place(sample, channel, member, PIECE, g, p, ROW), total, mask=mask)
    return by_s


@triton.jit
def store_first(
    by_x, by_y, by_a, sample, channel, batch, mask, PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr
):
    """The first operand's gradient, in its parts."""
    for r in tl.static_range(len(by_a)):
        row = sample + batch.to(tl.int64) * entry(PIECE, "first_part", r)
        at = entry(PIECE, "first", r, 0) + channel * entry(PIECE, "first", r, 1)
        if entry(PIECE, "first_is_x"):
            tl.store(by_x + row * DIM1 + at, by_a[r], mask=mask)
        else:
            tl.store(by_y + row * DIM2 + at, by_a[r], mask=mask)


@triton.jit
def store_second(
    by_x, by_y, by_s, first, end, sample, channel, member, batch, mask,
    PIECE: tl.constexpr, DIM1: tl.constexpr, DIM2: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The second operand's gradient, in its parts; of a uniform one, summed over the program's channels.

    The program's samples begin at `first` and exist up to `end`; `batch` is the size of a part.
    """
    for r in tl.static_range(len(by_s)):
        part = batch.to(tl.int64) * entry(PIECE, "second_part", r)
        if entry(PIECE, "uniform"):
            numbers = tl.sum(tl.reshape(by_s[r], (BLOCK_B, BLOCK_C)), 1)
            row = first + tl.arange(0, BLOCK_B)
            exists = row < end
            row += part + batch.to(tl.int64) * tl.program_id(1)
            at = entry(PIECE, "second", r, 0) + member * entry(PIECE, "second", r, 1)
        else:
            numbers = by_s[r]
            row = sample + part
            exists = mask
            at = second_place(channel, member, PIECE, r)
        if entry(PIECE, "first_is_x"):
            tl.store(by_y + row * DIM2 + at, numbers, mask=exists)
        else:
            tl.store(by_x + row * DIM1 + at, numbers, mask=exists)
