"""Radial basis in plain PyTorch: the truth for values, gradients and second derivatives."""

from __future__ import annotations

import math

import torch


def envelope(lengths: torch.Tensor, cutoff: float, p: int) -> torch.Tensor:
    """f(d/c) in the shape of `lengths`, as (1-u)³ Σ_{k<p} (k+1)(k+2)/2 u^k.

    The published form is the same polynomial, but cancels near u = 1, where in float32 it falls below zero.
    """
    u = (lengths / cutoff).clamp(max=1.0)
    total = torch.full_like(u, p * (p + 1) / 2)
    for k in reversed(range(p - 1)):
        total = total * u + (k + 1) * (k + 2) / 2
    return (1 - u) ** 3 * total


def radial_basis(lengths: torch.Tensor, n: int, cutoff: float, p: int) -> torch.Tensor:
    """The operator's formula, `[E]` -> `[E, n]`, differentiable by PyTorch itself."""
    k = _frequencies(lengths, n, cutoff)
    bessel = math.sqrt(2 / cutoff) * k * torch.sinc(k * lengths[:, None] / math.pi)
    return bessel * torch.where(lengths < cutoff, envelope(lengths, cutoff, p), 0.0)[:, None]


def forward(lengths: torch.Tensor, n: int, cutoff: float, p: int) -> torch.Tensor:
    """`[E]` -> `[E, n]`."""
    return radial_basis(lengths, n, cutoff, p)


def backward(grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int) -> torch.Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]` -> `[E]`."""
    b, b1, _ = _bessel(lengths, grad.shape[1], cutoff)
    f, f1, _ = _envelope(lengths, cutoff, p)
    return (grad * (b1 * f + b * f1)).sum(1)


def double_backward(
    grad_grad: torch.Tensor, grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of <grad_grad, backward(grad, lengths)> by grad `[E, n]` and by lengths `[E]`."""
    b, b1, b2 = _bessel(lengths, grad.shape[1], cutoff)
    f, f1, f2 = _envelope(lengths, cutoff, p)
    by_grad = grad_grad[:, None] * (b1 * f + b * f1)
    by_lengths = grad_grad * (grad * (b2 * f + 2 * b1 * f1 + b * f2)).sum(1)
    return by_grad, by_lengths


def forward_with_envelope(lengths: torch.Tensor, n: int, cutoff: float, p: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`[E]` -> `[E, n]` and the envelope `[E]`."""
    return radial_basis(lengths, n, cutoff, p), envelope(lengths, cutoff, p)


def backward_with_envelope(
    grad: torch.Tensor, grad_envelope: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int
) -> torch.Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]`, `[E]` -> `[E]`."""
    return backward(grad, lengths, cutoff, p) + grad_envelope * _envelope(lengths, cutoff, p)[1].squeeze(1)


def double_backward_with_envelope(
    grad_grad: torch.Tensor,
    grad: torch.Tensor,
    grad_envelope: torch.Tensor,
    lengths: torch.Tensor,
    cutoff: float,
    p: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of <grad_grad, backward_with_envelope(grad, grad_envelope, lengths)> by the last three."""
    by_grad, by_lengths = double_backward(grad_grad, grad, lengths, cutoff, p)
    _, f1, f2 = (f.squeeze(1) for f in _envelope(lengths, cutoff, p))
    return by_grad, grad_grad * f1, by_lengths + grad_grad * grad_envelope * f2


def _frequencies(lengths: torch.Tensor, n: int, cutoff: float) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=lengths.dtype, device=lengths.device) * (math.pi / cutoff)


def _bessel(lengths: torch.Tensor, n: int, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """b = √(2/c) sin(kd)/d and its first two derivatives, `[E, n]` each; by their series where kd is small."""
    k, d = _frequencies(lengths, n, cutoff), lengths[:, None]
    x = k * d
    series = x < 1e-2
    safe = torch.where(series, 1.0, d)
    scale = math.sqrt(2 / cutoff) * k
    b = torch.sinc(x / math.pi)
    b1 = torch.where(series, k * x * (x * x / 30 - 1 / 3), (torch.cos(x) - b) / safe)
    b2 = torch.where(series, k * k * (x * x / 10 - 1 / 3), -k * k * b - 2 * b1 / safe)
    return scale * b, scale * b1, scale * b2


def _envelope(lengths: torch.Tensor, cutoff: float, p: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """f and its first two derivatives by d, `[E, 1]` each."""
    u = (lengths / cutoff)[:, None].clamp(max=1.0)
    scale = p * (p + 1) * (p + 2) / 2
    inside = torch.where(u < 1, 1.0, 0.0)
    f1 = -scale / cutoff * u ** (p - 1) * (1 - u) ** 2
    f2 = -scale / cutoff**2 * u ** (p - 2) * (1 - u) * (p - 1 - (p + 1) * u)
    return envelope(lengths, cutoff, p)[:, None] * inside, f1 * inside, f2 * inside
