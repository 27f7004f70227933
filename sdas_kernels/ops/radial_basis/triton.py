# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""Radial basis and envelope on the GPU by Triton: value, backward and double backward, each one pass over the lengths.

A program has a tile `[lengths, functions]`. sin and cos of nπu are Taylor series after n u is brought into a quarter of
the period: as exact as the arithmetic, and without the tables in memory that a library's reduction of any angle needs.
The formulas of the derivatives are in `reference.py`.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels.triton_support import LAUNCH

TILE = 1024  # numbers of a program
LAUNCH_TILE = LAUNCH | {"num_warps": 4}
SERIES = 1e-2  # below this x = k d the derivatives of sin(x)/x are those of its series


@triton.constexpr_function
def taylor(order):
    """Coefficient of the series of cos (even orders) and sin (odd orders)."""
    return (-1) ** (order // 2) / math.factorial(order)


@triton.constexpr_function
def horner(k):
    """(k+1)(k+2)/2."""
    return (k + 1) * (k + 2) / 2


@triton.constexpr_function
def scale(cutoff):
    """√(2/c)."""
    return math.sqrt(2 / cutoff)


@triton.constexpr_function
def frequency(cutoff):
    """π/c."""
    return math.pi / cutoff


@triton.jit
def _lengths(lengths, count, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """This program's lengths, which of them exist, and their values."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = rows < count
    return rows, mask, tl.load(lengths + rows, mask=mask, other=1.0).to(DTYPE)


@triton.jit
def _tile(rows, mask, N: tl.constexpr, PADDED: tl.constexpr):
    """Where the functions of the lengths are, and which of them exist."""
    column = tl.arange(0, PADDED)
    return rows[:, None] * N + column[None, :], mask[:, None] & (column < N)[None, :]


@triton.jit
def _envelope(u, P: tl.constexpr):
    """f(u), u clamped to 1."""
    total = tl.full(u.shape, horner(P - 1), u.dtype)
    for k in tl.static_range(P - 1):
        total = total * u + horner(P - 2 - k)
    rest = 1 - u
    return rest * rest * rest * total


@triton.jit
def _envelope_slopes(u, inverse: tl.constexpr, P: tl.constexpr):
    """First and second derivative of f by the length; `inverse` is 1/cutoff."""
    power = tl.full(u.shape, P * (P + 1) * (P + 2) / 2, u.dtype)
    for _ in tl.static_range(P - 2):
        power = power * u
    f1 = -power * u * (1 - u) * (1 - u) * inverse
    return f1, -power * (1 - u) * (P - 1 - (P + 1) * u) * inverse * inverse


@triton.jit
def _sine(turns):
    """sin(π turns) and cos(π turns)."""
    turns = turns - 2 * tl.floor(turns * 0.5 + 0.5)
    size = tl.abs(turns)
    near = tl.minimum(size, 1 - size)
    angle = near * 3.141592653589793
    square = angle * angle
    sine, cosine = tl.zeros_like(turns), tl.zeros_like(turns)
    for k in tl.static_range(12):
        sine = sine * square + taylor(23 - 2 * k)
        cosine = cosine * square + taylor(22 - 2 * k)
    sine = sine * angle
    return tl.where(turns < 0, -sine, sine), tl.where(size > 0.5, -cosine, cosine)


@triton.jit
def _bessel(d, CUTOFF: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr):
    """sin(x)/x and cos(x) with x = k d, and k: `[lengths, functions]`."""
    order = (tl.arange(0, PADDED) + 1).to(DTYPE)[None, :]
    k = order * frequency(CUTOFF)
    x = k * d[:, None]
    sine, cosine = _sine(order * (d / CUTOFF)[:, None])
    return tl.where(x == 0, 1.0, sine / tl.where(x == 0, 1.0, x)).to(DTYPE), cosine, x, k


@triton.jit
def _slope(b, cosine, x, k, d, SMALL: tl.constexpr):
    """The derivative of sin(x)/x by the length, and the length where it can be divided by."""
    safe = tl.where(x < SMALL, 1.0, d[:, None]).to(x.dtype)
    return tl.where(x < SMALL, k * x * (x * x * (1 / 30) - 1 / 3), (cosine - b) / safe), safe


@triton.jit
def basis(
    out, out_envelope, lengths, count,
    N: tl.constexpr, CUTOFF: tl.constexpr, P: tl.constexpr, SMALL: tl.constexpr, ENVELOPE: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """R `[E, n]` and f `[E]`. Grid: blocks of lengths."""
    rows, mask, d = _lengths(lengths, count, BLOCK, DTYPE)
    at, there = _tile(rows, mask, N, PADDED)
    f = _envelope(tl.minimum(d / CUTOFF, 1.0), P)
    b, _, _, k = _bessel(d, CUTOFF, PADDED, DTYPE)
    tl.store(out + at, scale(CUTOFF) * k * b * f[:, None], mask=there)
    if ENVELOPE:
        tl.store(out_envelope + rows, f, mask=mask)


@triton.jit
def basis_backward(
    out, grad, grad_envelope, lengths, count,
    N: tl.constexpr, CUTOFF: tl.constexpr, P: tl.constexpr, SMALL: tl.constexpr, ENVELOPE: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """By lengths `[E]`. Grid: blocks of lengths."""
    rows, mask, d = _lengths(lengths, count, BLOCK, DTYPE)
    at, there = _tile(rows, mask, N, PADDED)
    u = tl.minimum(d / CUTOFF, 1.0)
    f = _envelope(u, P)
    f1, _ = _envelope_slopes(u, 1 / CUTOFF, P)
    b, cosine, x, k = _bessel(d, CUTOFF, PADDED, DTYPE)
    b1, _ = _slope(b, cosine, x, k, d, SMALL)
    g = tl.load(grad + at, mask=there, other=0.0).to(DTYPE)
    total = tl.sum(g * scale(CUTOFF) * k * (b1 * f[:, None] + b * f1[:, None]), 1)
    if ENVELOPE:
        total += tl.load(grad_envelope + rows, mask=mask, other=0.0).to(DTYPE) * f1
    tl.store(out + rows, total, mask=mask)


@triton.jit
def basis_double_backward(
    out_grad, out_grad_envelope, out_lengths, grad_grad, grad, grad_envelope, lengths, count,
    N: tl.constexpr, CUTOFF: tl.constexpr, P: tl.constexpr, SMALL: tl.constexpr, ENVELOPE: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Of a backward along grad_grad: by grad `[E, n]`, by grad_envelope `[E]`, by lengths `[E]`. Grid: as above."""
    rows, mask, d = _lengths(lengths, count, BLOCK, DTYPE)
    at, there = _tile(rows, mask, N, PADDED)
    u = tl.minimum(d / CUTOFF, 1.0)
    f = _envelope(u, P)
    f1, f2 = _envelope_slopes(u, 1 / CUTOFF, P)
    b, cosine, x, k = _bessel(d, CUTOFF, PADDED, DTYPE)
    b1, safe = _slope(b, cosine, x, k, d, SMALL)
    b2 = tl.where(x < SMALL, k * k * (x * x * (1 / 10) - 1 / 3), -k * k * b - 2 * b1 / safe)
    step = tl.load(grad_grad + rows, mask=mask, other=0.0).to(DTYPE)
    g = tl.load(grad + at, mask=there, other=0.0).to(DTYPE)
    tl.store(out_grad + at, step[:, None] * scale(CUTOFF) * k * (b1 * f[:, None] + b * f1[:, None]), mask=there)
    total = tl.sum(g * scale(CUTOFF) * k * (b2 * f[:, None] + 2 * b1 * f1[:, None] + b * f2[:, None]), 1)
    if ENVELOPE:
        tl.store(out_grad_envelope + rows, step * f1, mask=mask)
        total += tl.load(grad_envelope + rows, mask=mask, other=0.0).to(DTYPE) * f2
    tl.store(out_lengths + rows, step * total, mask=mask)


def forward(lengths: Tensor, n: int, cutoff: float, p: int) -> Tensor:
    """`[E]` -> `[E, n]`."""
    out = lengths.new_empty(len(lengths), n)
    _run(basis, (out, out, lengths), n, cutoff, p, False)
    return out


def backward(grad: Tensor, lengths: Tensor, cutoff: float, p: int) -> Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]` -> `[E]`."""
    out = torch.empty_like(lengths)
    _run(basis_backward, (out, grad, grad, lengths), grad.shape[1], cutoff, p, False)
    return out


def double_backward(grad_grad: Tensor, grad: Tensor, lengths: Tensor, cutoff: float, p: int) -> tuple[Tensor, Tensor]:
    """Gradients of <grad_grad, backward(grad, lengths)> by grad `[E, n]` and by lengths `[E]`."""
    by_grad, by_lengths = torch.empty_like(grad), torch.empty_like(lengths)
    tensors = (by_grad, by_grad, by_lengths, grad_grad, grad, grad, lengths)
    _run(basis_double_backward, tensors, grad.shape[1], cutoff, p, False)
    return by_grad, by_lengths


def forward_with_envelope(lengths: Tensor, n: int, cutoff: float, p: int) -> tuple[Tensor, Tensor]:
    """`[E]` -> `[E, n]` and the envelope `[E]`."""
    out = lengths.new_empty(len(lengths), n), torch.empty_like(lengths)
    _run(basis, (*out, lengths), n, cutoff, p, True)
    return out


def backward_with_envelope(grad: Tensor, grad_envelope: Tensor, lengths: Tensor, cutoff: float, p: int) -> Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]`, `[E]` -> `[E]`."""
    out = torch.empty_like(lengths)
    _run(basis_backward, (out, grad, grad_envelope, lengths), grad.shape[1], cutoff, p, True)
    return out


def double_backward_with_envelope(
    grad_grad: Tensor, grad: Tensor, grad_envelope: Tensor, lengths: Tensor, cutoff: float, p: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <grad_grad, backward_with_envelope(grad, grad_envelope, lengths)> by the last three."""
    out = torch.empty_like(grad), torch.empty_like(grad_envelope), torch.empty_like(lengths)
    _run(basis_double_backward, (*out, grad_grad, grad, grad_envelope, lengths), grad.shape[1], cutoff, p, True)
    return out


def _run(kernel, tensors: tuple[Tensor, ...], n: int, cutoff: float, p: int, envelope: bool) -> None:
    lengths = tensors[-1]
    padded = triton.next_power_of_2(n)
    block = max(1, TILE // padded)
    dtype = tl.float64 if lengths.dtype == torch.float64 else tl.float32
    if len(lengths):
        with torch.cuda.device_of(lengths):
            kernel[(triton.cdiv(len(lengths), block),)](
                *tensors, len(lengths),
                N=n, CUTOFF=cutoff, P=p, SMALL=SERIES, ENVELOPE=envelope, BLOCK=block,
                PADDED=padded, DTYPE=dtype, **LAUNCH_TILE,
            )  # fmt: skip
