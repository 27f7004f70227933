"""What layers need to know of an edge, from its vector in one call.

    Y_lm(r/|r|)  "component" normalized,   R_n(|r|),   f(|r|/cutoff)

See `sdas_kernels.ops.spherical_harmonics` and `sdas_kernels.ops.radial_basis` for the three functions. One operator, so
that a model's gradient by the vectors takes one call, and its second derivative another.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.arguments import whole_number
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.ops.edge_geometry import autograd
from sdas_kernels.ops.radial_basis import check_basis

register(Backend("edge_geometry", "reference", f"{__name__}.reference"))
register(Backend("edge_geometry", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available))
register(triton_support.backend("edge_geometry", f"{__name__}.triton"))


@in_operand_dtype
def edge_geometry(
    vectors: torch.Tensor, lmax: int, n: int, cutoff: float, p: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Harmonics of the direction, radial basis and envelope of the length of every edge.

    Args:
        vectors: `[E, 3]` Å, any floating dtype. A zero vector has zero gradients.
        lmax: highest degree, 0..8.
        n: how many radial functions, 1..4096.
        cutoff: Å.
        p: exponent of the envelope, 3..100.

    Returns:
        harmonics `[E, (lmax+1)²]`, radial `[E, n]` in Å^(-3/2), envelope `[E]`. Twice differentiable.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range.
    """
    check_floating("edge_geometry", vectors=vectors)
    if vectors.ndim != 2 or vectors.shape[1] != 3:
        raise ValueError(f"edge_geometry: vectors must be [E, 3], got {list(vectors.shape)}")
    lmax = whole_number("edge_geometry", "lmax", lmax, 0, LMAX)
    n, cutoff, p = check_basis("edge_geometry", n, cutoff, p)
    return autograd.edge_geometry(vectors.contiguous(), lmax, n, cutoff, p)
