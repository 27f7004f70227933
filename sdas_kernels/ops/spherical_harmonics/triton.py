# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="assignment,misc"
"""Spherical harmonics on the GPU by Triton: value, backward and double backward, each one pass over the vectors.

A thread has one vector and goes through the degrees from 0 up by the recurrences of
`csrc/ops/spherical_harmonics/solid_harmonics.h`: of q_lm it keeps the last two degrees, of c_m and s_m all orders so
far. The loops over degrees and orders are unrolled, the factors are constants. What is read and written per vector,
rows of M numbers, passes through shared memory between threads that hold a vector each and threads that hold
neighbors in memory, some columns at a time, so that memory is read and written in whole lines.

In names, q_below and q_step are q of one degree less, and the derivative along the step of a double backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels.ops.spherical_harmonics.triton_table import (
    columns_of,
    diagonal,
    f,
    halved,
    log2,
    read_before,
    size,
    table,
    written_before,
)
from sdas_kernels.triton_support import LAUNCH

VECTORS = 128  # of a program: one per thread
LAUNCH_VECTORS = LAUNCH | {"num_warps": 4}
WHOLE = 4  # the last degree whose double backward fits in registers; above it there are two kernels, one per result
PARTS = ({"BY_GRAD": True, "BY_VECTORS": False}, {"BY_GRAD": False, "BY_VECTORS": True})


@triton.jit
def _rows(count, BLOCK: tl.constexpr):
    """This program's vectors and which of them exist."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return rows, rows < count


@triton.jit
def _vector(vectors, rows, mask, DTYPE: tl.constexpr):
    """(X, Y, Z), which is (z, x, y)."""
    y = tl.load(vectors + rows * 3, mask=mask, other=0.0).to(DTYPE)
    z = tl.load(vectors + rows * 3 + 1, mask=mask, other=0.0).to(DTYPE)
    x = tl.load(vectors + rows * 3 + 2, mask=mask, other=0.0).to(DTYPE)
    return x, y, z


@triton.jit
def _store_vector(out, rows, mask, x, y, z):
    tl.store(out + rows * 3, y, mask=mask)
    tl.store(out + rows * 3 + 1, z, mask=mask)
    tl.store(out + rows * 3 + 2, x, mask=mask)


@triton.jit
def _unit(x, y, z, NORMALIZE: tl.constexpr):
    """r/|r| and 1/|r|, zero at r = 0, no square of which over- or underflows; or r itself."""
    inverse = tl.zeros_like(x)
    if NORMALIZE:
        largest = tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), tl.abs(z))
        zero = largest == 0
        safe = tl.where(zero, 1.0, largest).to(x.dtype)
        x, y, z = x / safe, y / safe, z / safe
        length = tl.where(zero, 1.0, tl.sqrt(x * x + y * y + z * z)).to(x.dtype)
        x, y, z = x / length, y / length, z / length
        inverse = tl.where(zero, 0.0, 1.0 / (length * safe)).to(x.dtype)
    return x, y, z, inverse


@triton.jit
def _store_columns(
    out, rows, mask, columns, l: tl.constexpr, LMAX: tl.constexpr, TABLE: tl.constexpr, BLOCK: tl.constexpr
):
    """Columns that degree l completes, of a tuple of `[BLOCK]`, to rows of M numbers in memory."""
    width: tl.constexpr = columns_of(TABLE)
    m: tl.constexpr = size(TABLE)
    zero = tl.zeros_like(columns[0])
    for chunk in tl.static_range(written_before(l, width, LMAX), written_before(l + 1, width, LMAX)):
        tile = ()
        for k in tl.static_range(width):
            if chunk * width + k < m:
                tile += (columns[chunk * width + k],)
            else:
                tile += (zero,)
        for level in tl.static_range(log2(width)):
            joined = ()
            for k in tl.static_range(halved(width, level + 1)):
                joined += (tl.join(tile[k], tile[k + halved(width, level + 1)]),)
            tile = joined
        column = chunk * width + tl.arange(0, width)
        to = out + rows[:, None] * m + column[None, :]
        tl.store(to, tl.reshape(tile[0], (BLOCK, width)), mask=mask[:, None] & (column < m)[None, :])


@triton.jit
def _load_columns(
    columns, given, rows, mask, l: tl.constexpr, TABLE: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr
):
    """The other way: a tuple of `[BLOCK]` and what degree l needs beyond it, columns beyond M included."""
    width: tl.constexpr = columns_of(TABLE)
    m: tl.constexpr = size(TABLE)
    for chunk in tl.static_range(read_before(l, width), read_before(l + 1, width)):
        column = chunk * width + tl.arange(0, width)
        at = given + rows[:, None] * m + column[None, :]
        block = tl.load(at, mask=mask[:, None] & (column < m)[None, :], other=0.0).to(DTYPE)
        tile = (tl.reshape(block, (BLOCK,) + (2,) * log2(width)),)
        for _ in tl.static_range(log2(width)):
            even, odd = (), ()
            for k in tl.static_range(len(tile)):
                first, second = tl.split(tile[k])
                even += (first,)
                odd += (second,)
            tile = even + odd
        columns += tile
    return columns


@triton.jit
def _degree(l: tl.constexpr, z, r2, q_below, q_lower, one):
    """q_lm for m = 0..l, from those of degrees l-1 and l-2."""
    q = ()
    for m in tl.static_range(l + 1):
        if m == l:
            q += (one * diagonal(l),)
        elif m == l - 1:
            q += (z * q_below[m],)
        else:
            q += (((2 * l - 1) / (l * l - m * m)) * z * q_below[m] - (1 / (l * l - m * m)) * r2 * q_lower[m],)
    return q


@triton.jit
def _degree_step(l: tl.constexpr, z_step, rho, q_below, one):
    """The derivative of q_lm along the step, where rho = X X_step + Y Y_step."""
    q_step = ()
    for m in tl.static_range(l + 1):
        if m == l:
            q_step += (one * 0.0,)
        elif m == l - 1:
            q_step += (z_step * q_below[m],)
        else:
            q_step += (z_step * q_below[m] - rho * q_below[m + 1],)
    return q_step


@triton.jit
def harmonics(
    out, vectors, count, TABLE: tl.constexpr, LMAX: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """Y `[B, M]`. Grid: blocks of vectors."""
    rows, mask = _rows(count, BLOCK)
    x, y, z = _vector(vectors, rows, mask, DTYPE)
    x, y, z, _ = _unit(x, y, z, NORMALIZE)
    r2 = x * x + y * y + z * z
    one = tl.full((BLOCK,), 1.0, DTYPE)
    c, s = (one,), (tl.zeros_like(one),)
    q, q_below = (), ()
    columns = ()
    for l in tl.static_range(LMAX + 1):
        q_lower = q_below
        q_below = q
        q = _degree(l, z, r2, q_below, q_lower, one)
        if l > 0:
            c_below, s_below = c[l - 1], s[l - 1]
            c += (x * c_below - y * s_below,)
            s += (x * s_below + y * c_below,)
        for k in tl.static_range(l):
            columns += (f(TABLE, l, l - k) * q[l - k] * s[l - k],)
        for m in tl.static_range(l + 1):
            columns += (f(TABLE, l, m) * q[m] * c[m],)
        _store_columns(out, rows, mask, columns, l, LMAX, TABLE, BLOCK)


@triton.jit
def harmonics_backward(
    out, grad, vectors, count, TABLE: tl.constexpr, LMAX: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """By vectors `[B, 3]`. Grid: blocks of vectors."""
    rows, mask = _rows(count, BLOCK)
    x, y, z = _vector(vectors, rows, mask, DTYPE)
    x, y, z, inverse = _unit(x, y, z, NORMALIZE)
    r2 = x * x + y * y + z * z
    g = ()
    one = tl.full((BLOCK,), 1.0, DTYPE)
    zero = tl.zeros_like(one)
    c, s = (one,), (zero,)
    q, q_below = (), ()
    by_x, by_y, by_z, by_r = zero, zero, zero, zero
    for l in tl.static_range(LMAX + 1):
        q_lower = q_below
        q_below = q
        q = _degree(l, z, r2, q_below, q_lower, one)
        g = _load_columns(g, grad, rows, mask, l, TABLE, BLOCK, DTYPE)
        if l > 0:
            c_below, s_below = c[l - 1], s[l - 1]
            c += (x * c_below - y * s_below,)
            s += (x * s_below + y * c_below,)
        for m in tl.static_range(l + 1):
            gc = f(TABLE, l, m) * g[l * l + l + m]
            w = gc * c[m]
            if m > 0:
                gs = f(TABLE, l, m) * g[l * l + l - m]
                w += gs * s[m]
                by_x += m * q[m] * (gc * c[m - 1] + gs * s[m - 1])
                by_y += m * q[m] * (gs * c[m - 1] - gc * s[m - 1])
            if l > m:
                by_z += w * q_below[m]
            if l > m + 1:
                by_r += w * q_below[m + 1]
    by_x -= x * by_r
    by_y -= y * by_r
    if NORMALIZE:
        along = x * by_x + y * by_y + z * by_z
        by_x = (by_x - x * along) * inverse
        by_y = (by_y - y * along) * inverse
        by_z = (by_z - z * along) * inverse
    _store_vector(out, rows, mask, by_x, by_y, by_z)


@triton.jit
def harmonics_double_backward(
    out_grad, out_vectors, grad_grad, grad, vectors, count,
    TABLE: tl.constexpr, LMAX: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr,
    BY_GRAD: tl.constexpr, BY_VECTORS: tl.constexpr,
):  # fmt: skip
    """Of a backward along grad_grad: by grad `[B, M]`, by vectors `[B, 3]`, or both. Grid: blocks of vectors."""
    rows, mask = _rows(count, BLOCK)
    x, y, z = _vector(vectors, rows, mask, DTYPE)
    x, y, z, inverse = _unit(x, y, z, NORMALIZE)
    r2 = x * x + y * y + z * z
    given_x, given_y, given_z = _vector(grad_grad, rows, mask, DTYPE)
    along = x * given_x + y * given_y + z * given_z
    dx, dy, dz = given_x, given_y, given_z
    if NORMALIZE:  # how r/|r| moves when r moves along grad_grad
        dx, dy, dz = (dx - x * along) * inverse, (dy - y * along) * inverse, (dz - z * along) * inverse
    rho = x * dx + y * dy
    g = ()
    one = tl.full((BLOCK,), 1.0, DTYPE)
    zero = tl.zeros_like(one)
    c, s, c_step, s_step = (one,), (zero,), (zero,), (zero,)
    q, q_below, q_step = (), (), ()
    by_x, by_y, by_z, by_r = zero, zero, zero, zero
    x_step, y_step, z_step, r_step = zero, zero, zero, zero
    columns = ()
    for l in tl.static_range(LMAX + 1):
        q_lower = q_below
        q_below, q_step_below = q, q_step
        q = _degree(l, z, r2, q_below, q_lower, one)
        q_step = _degree_step(l, dz, rho, q_below, one)
        if BY_VECTORS:
            g = _load_columns(g, grad, rows, mask, l, TABLE, BLOCK, DTYPE)
        if l > 0:
            a, b, a_step, b_step = c[l - 1], s[l - 1], c_step[l - 1], s_step[l - 1]
            c += (x * a - y * b,)
            s += (x * b + y * a,)
            c_step += (dx * a - dy * b + x * a_step - y * b_step,)
            s_step += (dx * b + dy * a + x * b_step + y * a_step,)
        if BY_GRAD:
            for k in tl.static_range(l):
                columns += (f(TABLE, l, l - k) * (q[l - k] * s_step[l - k] + q_step[l - k] * s[l - k]),)
            for m in tl.static_range(l + 1):
                columns += (f(TABLE, l, m) * (q[m] * c_step[m] + q_step[m] * c[m]),)
            _store_columns(out_grad, rows, mask, columns, l, LMAX, TABLE, BLOCK)
        if BY_VECTORS:
            for m in tl.static_range(l + 1):
                gc = f(TABLE, l, m) * g[l * l + l + m]
                w = gc * c[m]
                w_step = gc * c_step[m]
                if m > 0:
                    gs = f(TABLE, l, m) * g[l * l + l - m]
                    w += gs * s[m]
                    w_step += gs * s_step[m]
                    u = gc * c[m - 1] + gs * s[m - 1]
                    v = gs * c[m - 1] - gc * s[m - 1]
                    by_x += m * q[m] * u
                    by_y += m * q[m] * v
                    x_step += m * (q[m] * (gc * c_step[m - 1] + gs * s_step[m - 1]) + q_step[m] * u)
                    y_step += m * (q[m] * (gs * c_step[m - 1] - gc * s_step[m - 1]) + q_step[m] * v)
                if l > m:
                    by_z += w * q_below[m]
                    z_step += w_step * q_below[m] + w * q_step_below[m]
                if l > m + 1:
                    by_r += w * q_below[m + 1]
                    r_step += w_step * q_below[m + 1] + w * q_step_below[m + 1]
    if BY_VECTORS:
        by_x -= x * by_r
        by_y -= y * by_r
        x_step -= dx * by_r + x * r_step
        y_step -= dy * by_r + y * r_step
        if NORMALIZE:
            radial = x * by_x + y * by_y + z * by_z
            x_step -= (by_x * along + given_x * radial) * inverse
            y_step -= (by_y * along + given_y * radial) * inverse
            z_step -= (by_z * along + given_z * radial) * inverse
            inward = x * x_step + y * y_step + z * z_step + by_x * dx + by_y * dy + by_z * dz
            x_step = (x_step - x * inward) * inverse
            y_step = (y_step - y * inward) * inverse
            z_step = (z_step - z * inward) * inverse
        _store_vector(out_vectors, rows, mask, x_step, y_step, z_step)


def forward(vectors: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """`[B, 3]` -> `[B, M]`."""
    out = vectors.new_empty(len(vectors), (lmax + 1) ** 2)
    _run(harmonics, (out, vectors), lmax, normalize, normalization)
    return out


def backward(grad: Tensor, vectors: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Gradient by the vectors, `[B, 3]`."""
    out = torch.empty_like(vectors)
    _run(harmonics_backward, (out, grad, vectors), lmax, normalize, normalization)
    return out


def double_backward(
    grad_grad: Tensor, grad: Tensor, vectors: Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[Tensor, Tensor]:
    """Gradients of <grad_grad, backward(grad, vectors)> by grad `[B, M]` and by vectors `[B, 3]`."""
    out = torch.empty_like(grad), torch.empty_like(vectors)
    for part in ({"BY_GRAD": True, "BY_VECTORS": True},) if lmax <= WHOLE else PARTS:
        _run(harmonics_double_backward, (*out, grad_grad, grad, vectors), lmax, normalize, normalization, **part)
    return out


def _run(kernel, tensors: tuple[Tensor, ...], lmax: int, normalize: bool, normalization: str, **part: bool) -> None:
    vectors = tensors[-1]
    count = len(vectors)
    dtype = tl.float64 if vectors.dtype == torch.float64 else tl.float32
    if count:
        with torch.cuda.device_of(vectors):
            kernel[(triton.cdiv(count, VECTORS),)](
                *tensors, count,
                TABLE=table(lmax, normalization), LMAX=lmax, NORMALIZE=normalize, BLOCK=VECTORS, DTYPE=dtype,
                **part, **LAUNCH_VECTORS,
            )  # fmt: skip
