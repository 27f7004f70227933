"""Edge geometry in plain PyTorch: the truth for values, gradients and second derivatives."""

from __future__ import annotations

from functools import partial

import torch

from sdas_kernels.ops.edge_geometry import composition
from sdas_kernels.ops.radial_basis import reference as radial
from sdas_kernels.ops.spherical_harmonics import reference as harmonics


def edge_geometry(
    vectors: torch.Tensor, lmax: int, n: int, cutoff: float, p: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operator's formula, `[E, 3]` -> `[E, (lmax+1)²]`, `[E, n]`, `[E]`, differentiable by PyTorch itself."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    functions = radial.radial_basis(lengths, n, cutoff, p), radial.envelope(lengths, cutoff, p)
    return harmonics.spherical_harmonics(vectors, lmax, True, "component"), *functions


forward = partial(composition.forward, harmonics, radial)
backward = partial(composition.backward, harmonics, radial)
double_backward = partial(composition.double_backward, harmonics, radial)
