"""Radial basis: Bessel functions times a polynomial envelope that ends smoothly at the cutoff.

    R_n(d) = √(2/c) sin(nπ d/c)/d · f(d/c),   n = 1..N
    f(u)   = 1 - (p+1)(p+2)/2 u^p + p(p+2) u^(p+1) - p(p+1)/2 u^(p+2)   for u < 1, else 0

f and its first two derivatives vanish at u = 1 (p >= 3), so energies, forces and Hessians stay continuous there.

Source: J. Gasteiger et al., ICLR 2020 (arXiv 2003.03123), equations 7 and 8.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.arguments import positive_length, whole_number
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.ops.radial_basis import autograd, flops
from sdas_kernels.ops.radial_basis.reference import envelope

MAX_FUNCTIONS, MAX_EXPONENT = 4096, 100

register(Backend("radial_basis", "reference", f"{__name__}.reference"))
register(Backend("radial_basis", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available))
register(triton_support.backend("radial_basis", f"{__name__}.triton"))
register_ladder("radial_basis", flops)


@in_operand_dtype
def radial_basis(lengths: torch.Tensor, n: int, cutoff: float, p: int = 6) -> torch.Tensor:
    """Bessel functions times the envelope.

    Args:
        lengths: `[E]` Å, any floating dtype, >= 0.
        n: how many functions, 1..4096.
        cutoff: Å.
        p: exponent of the envelope, 3..100.

    Returns:
        `[E, n]` in Å^(-3/2), zero where a length reaches the cutoff. Twice differentiable.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range.
    """
    check_floating("radial_basis", lengths=lengths)
    if lengths.ndim != 1:
        raise ValueError(f"radial_basis: lengths must be [E], got {list(lengths.shape)}")
    return autograd.radial_basis(lengths.contiguous(), *check_basis("radial_basis", n, cutoff, p))


@in_operand_dtype
def polynomial_envelope(lengths: torch.Tensor, cutoff: float, p: int = 6) -> torch.Tensor:
    """The envelope f(d/cutoff) alone, in the shape of `lengths` (Å)."""
    check_floating("polynomial_envelope", lengths=lengths)
    _, cutoff, p = check_basis("polynomial_envelope", 1, cutoff, p)
    return envelope(lengths, cutoff, p)


def check_basis(op: str, n: int, cutoff: float, p: int) -> tuple[int, float, int]:
    """n, cutoff and p as the operators take them; p is at least 3 for a continuous second derivative."""
    return (
        whole_number(op, "n", n, 1, MAX_FUNCTIONS),
        positive_length(op, "cutoff", cutoff),
        whole_number(op, "p", p, 3, MAX_EXPONENT),
    )
