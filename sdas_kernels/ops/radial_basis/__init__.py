"""Radial basis: Bessel functions times a polynomial envelope that ends smoothly at the cutoff.

    R_n(d) = √(2/c) sin(nπ d/c)/d · f(d/c),   n = 1..N
    f(u)   = 1 - (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) - p(p+1)/2 u^(p+2)   for u < 1, else 0

f and its first two derivatives vanish at u = 1 (p >= 3), so energies, forces and Hessians stay continuous there.

Source: J. Gasteiger et al., ICLR 2020 (arXiv 2003.03123), equations 7 and 8.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.ops.radial_basis import autograd, flops
from sdas_kernels.ops.radial_basis.reference import envelope

register(Backend("radial_basis", "reference", f"{__name__}.reference"))
register(
    Backend("radial_basis", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available)
)
register(triton_support.backend("radial_basis", f"{__name__}.triton"))
register_ladder("radial_basis", flops)


@in_operand_dtype
def radial_basis(lengths: torch.Tensor, n: int, cutoff: float, p: int = 6) -> torch.Tensor:
    """Bessel functions times the envelope.

    Args:
        lengths: `[E]` Å, any floating dtype, >= 0.
        n: how many functions.
        cutoff: Å.
        p: exponent of the envelope, >= 3.

    Returns:
        `[E, n]` in Å^(-3/2), zero where a length reaches the cutoff. Twice differentiable.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range.
    """
    _check("radial_basis", lengths, cutoff, p)
    if lengths.ndim != 1 or n < 1:
        raise ValueError(f"radial_basis: wants lengths [E] and n >= 1, got {list(lengths.shape)} and n = {n}")
    return autograd.radial_basis(lengths.contiguous(), n, float(cutoff), p)


@in_operand_dtype
def polynomial_envelope(lengths: torch.Tensor, cutoff: float, p: int = 6) -> torch.Tensor:
    """The envelope f(d/cutoff) alone, in the shape of `lengths` (Å)."""
    _check("polynomial_envelope", lengths, cutoff, p)
    return envelope(lengths, float(cutoff), p)


def _check(op: str, lengths: torch.Tensor, cutoff: float, p: int) -> None:
    check_floating(op, lengths=lengths)
    if not cutoff > 0:
        raise ValueError(f"{op}: cutoff must be positive (Å), got {cutoff}")
    if p < 3:
        raise ValueError(f"{op}: p must be at least 3 for a continuous second derivative, got {p}")
