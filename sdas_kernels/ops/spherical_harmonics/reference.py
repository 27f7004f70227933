"""Spherical harmonics in plain PyTorch: the truth for values, gradients and second derivatives.

Solid harmonics follow from two recurrences in Cartesian coordinates, here with (X, Y, Z) = (z, x, y):

    c_m + i s_m = (X + iY)^m
    Q_m^m = (2m-1)!!,   Q_{l+1}^m = ((2l+1) Z Q_l^m - (l+m) r² Q_{l-1}^m) / (l-m+1)
    Y_{l,±m} = N_lm Q_l^m · (c_m | s_m),   N_lm = √((2l+1)/(4π) · 2^{m>0} (l-m)!/(l+m)!)

The derivative of a solid harmonic of degree l is a combination of those of degree l-1, so the whole derivative ladder
is made of values and one constant tensor.

Source: R. J. Bigi et al., J. Chem. Phys. 159, 064802 (2023), section II.
"""

from __future__ import annotations

import math

import torch

from sdas_kernels.constants import constant


def solid_harmonics(vectors: torch.Tensor, lmax: int, normalization: str) -> torch.Tensor:
    """|r|^l Y_lm(r/|r|), `[B, 3]` -> `[B, (lmax+1)²]`, differentiable by PyTorch itself."""
    z, x, y = vectors[:, 1], vectors[:, 2], vectors[:, 0]
    r2 = x * x + y * y + z * z
    one = torch.ones_like(x)
    c, s = [one], [torch.zeros_like(x)]
    for _ in range(lmax):
        c, s = [*c, x * c[-1] - y * s[-1]], [*s, x * s[-1] + y * c[-1]]
    q = {(0, 0): one}
    for m in range(lmax + 1):
        if m > 0:
            q[m, m] = (2 * m - 1) * q[m - 1, m - 1]
        for l in range(m, lmax):
            previous = (l + m) * r2 * q[l - 1, m] if l > m else 0.0
            q[l + 1, m] = ((2 * l + 1) * z * q[l, m] - previous) / (l - m + 1)
    rows = []
    for l in range(lmax + 1):
        n = [_norm(l, m, normalization) for m in range(l + 1)]
        rows += [n[m] * q[l, m] * s[m] for m in range(l, 0, -1)]
        rows += [n[m] * q[l, m] * c[m] for m in range(l + 1)]
    return torch.stack(rows, -1)


def spherical_harmonics(vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    """The operator's formula, `[B, 3]` -> `[B, (lmax+1)²]`, differentiable by PyTorch itself except at r = 0."""
    return solid_harmonics(_unit(vectors)[0] if normalize else vectors, lmax, normalization)


def forward(vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    """`[B, 3]` -> `[B, M]`, M = (lmax+1)²."""
    return spherical_harmonics(vectors, lmax, normalize, normalization)


def backward(grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    """Gradient by the vectors: `[B, M]`, `[B, 3]` -> `[B, 3]`."""
    if not normalize:
        return _contract_gradient(grad, vectors, lmax, normalization)
    u, inverse_r = _unit(vectors)
    h = _contract_gradient(grad, u, lmax, normalization)
    return (h - u * (u * h).sum(-1, keepdim=True)) * inverse_r


def double_backward(
    grad_grad: torch.Tensor, grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of <grad_grad, backward(grad, vectors)> by grad `[B, M]` and by vectors `[B, 3]`."""
    if not normalize:
        return (
            _directional(grad_grad, vectors, lmax, normalization),
            _contract_hessian(grad_grad, grad, vectors, lmax, normalization),
        )
    u, inverse_r = _unit(vectors)
    along = (u * grad_grad).sum(-1, keepdim=True)
    step = (grad_grad - u * along) * inverse_r  # how u moves when r moves along grad_grad
    h = _contract_gradient(grad, u, lmax, normalization)
    curvature = _contract_hessian(step, grad, u, lmax, normalization)
    by_u = curvature - (h * along + grad_grad * (h * u).sum(-1, keepdim=True)) * inverse_r
    by_r = -(h * step).sum(-1, keepdim=True)
    projected = by_u - u * (u * by_u).sum(-1, keepdim=True)
    return _directional(step, u, lmax, normalization), (projected + u * by_r) * inverse_r


def _unit(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """r/|r| and 1/|r|, both zero at r = 0; scaled by the largest component so that no square over- or underflows."""
    largest = vectors.abs().amax(-1, keepdim=True)
    zero = largest == 0
    scaled = vectors / torch.where(zero, 1.0, largest)
    length = torch.linalg.vector_norm(torch.where(zero, 1.0, scaled), dim=-1, keepdim=True)
    inverse = torch.where(zero, 0.0, 1.0 / (length * torch.where(zero, 1.0, largest)))
    return torch.where(zero, 0.0, scaled / length), inverse


def _contract_gradient(grad: torch.Tensor, r: torch.Tensor, lmax: int, normalization: str) -> torch.Tensor:
    """Σ_m grad_m ∂_a R_m(r): `[B, 3]`."""
    return torch.einsum("bm,amn,bn->ba", grad, *_derivative_and_value(r, lmax, normalization))


def _directional(step: torch.Tensor, r: torch.Tensor, lmax: int, normalization: str) -> torch.Tensor:
    """Σ_a step_a ∂_a R_m(r): `[B, M]`."""
    return torch.einsum("ba,amn,bn->bm", step, *_derivative_and_value(r, lmax, normalization))


def _contract_hessian(
    step: torch.Tensor, grad: torch.Tensor, r: torch.Tensor, lmax: int, normalization: str
) -> torch.Tensor:
    """Σ_{m,b} grad_m ∂_a ∂_b R_m(r) step_b: `[B, 3]`."""
    derivative, value = _derivative_and_value(r, lmax, normalization)
    once = torch.einsum("bm,ba,amn->bn", grad, step, derivative)
    return torch.einsum("bm,amn,bn->ba", once, derivative, value)


def _derivative_and_value(r: torch.Tensor, lmax: int, normalization: str) -> tuple[torch.Tensor, torch.Tensor]:
    derivative = _derivative_matrices(lmax, normalization).to(dtype=r.dtype, device=r.device)
    return derivative, solid_harmonics(r, lmax, normalization)


def _norm(l: int, m: int, normalization: str) -> float:
    factor = (2 * l + 1) / (4 * math.pi) * (2 if m else 1) * math.factorial(l - m) / math.factorial(l + m)
    scale = {"integral": 1.0, "component": 4 * math.pi, "norm": 4 * math.pi / (2 * l + 1)}[normalization]
    return math.sqrt(factor * scale)


@constant
def _derivative_matrices(lmax: int, normalization: str) -> torch.Tensor:
    """D `[3, M, M]` with ∂_a R_m = Σ_n D[a, m, n] R_n, found by fitting the polynomials' exact derivatives."""
    with torch.enable_grad():
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(4 * (lmax + 1) ** 2, 3, dtype=torch.float64, generator=generator)
        points = (points / points.norm(dim=-1, keepdim=True)).requires_grad_(True)
        values = solid_harmonics(points, lmax, normalization) + 0 * points[:, :1]  # degree 0 does not depend on points
        slopes = torch.stack([torch.autograd.grad(v.sum(), points, retain_graph=True)[0] for v in values.T], 1)
    matrices = torch.linalg.lstsq(values.detach(), slopes.detach().flatten(1)).solution  # [n, (m, a)]
    matrices = matrices.unflatten(1, ((lmax + 1) ** 2, 3)).permute(2, 1, 0)
    return torch.where(matrices.abs() < 1e-10, 0.0, matrices).contiguous()
