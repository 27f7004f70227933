"""Real spherical harmonics.

    Y_lm(r),  l = 0..lmax,  m = -l..l        solid:      |r|^l Y_lm(r/|r|)   (normalize=False)
                                             normalized: Y_lm(r/|r|)         (normalize=True)

Order and sign are e3nn's: with r = (x, y, z) the degree l = 1 reads (x, y, z); in the textbook convention these are the
real harmonics without Condon–Shortley phase, m = -l..l, of the rotated vector (z, x, y).
Normalizations by e3nn's names: "integral" makes them orthonormal on the unit sphere, "component" multiplies by √(4π) so
that |Y_l|² = 2l+1, "norm" makes |Y_l| = 1.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.arguments import whole_number
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.ops.spherical_harmonics import autograd

NORMALIZATIONS = ("integral", "component", "norm")

register(Backend("spherical_harmonics", "reference", f"{__name__}.reference"))
register(
    Backend("spherical_harmonics", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available)
)
register(triton_support.backend("spherical_harmonics", f"{__name__}.triton"))


@in_operand_dtype
def spherical_harmonics(
    vectors: torch.Tensor, lmax: int, normalize: bool = True, normalization: str = "component"
) -> torch.Tensor:
    """Real spherical harmonics of every degree up to `lmax`.

    Args:
        vectors: `[..., 3]`, any floating dtype, any device, any strides.
        lmax: highest degree, 0..8.
        normalize: evaluate at r/|r|. A zero vector then gives the l = 0 value and zeros, with zero derivatives.
        normalization: "component", "integral" or "norm".

    Returns:
        `[..., (lmax+1)²]`; the rows of degree l are `l² .. (l+1)²`. Twice differentiable.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range.
    """
    check_floating("spherical_harmonics", vectors=vectors)
    if vectors.shape[-1:] != (3,):
        raise ValueError(f"spherical_harmonics: vectors must be [..., 3], got {list(vectors.shape)}")
    lmax = whole_number("spherical_harmonics", "lmax", lmax, 0, LMAX)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"spherical_harmonics: normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}"
        )
    flat = vectors.reshape(-1, 3).contiguous()
    out = autograd.spherical_harmonics(flat, lmax, bool(normalize), normalization)
    return out.reshape(*vectors.shape[:-1], (lmax + 1) ** 2)
