"""Edge geometry from spherical harmonics and radial basis, by whichever backend of the two.

`harmonics` and `radial` are backend modules of `spherical_harmonics` and `radial_basis`. What depends on the length
d = |r| alone has the gradient u ∂/∂d with u = r/d.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

_OPTIONS = (True, "component")  # normalize, normalization


def forward(
    harmonics: ModuleType, radial: ModuleType, vectors: Tensor, lmax: int, n: int, cutoff: float, p: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`[E, (lmax+1)²]`, `[E, n]`, `[E]`."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    return harmonics.forward(vectors, lmax, *_OPTIONS), *radial.forward_with_envelope(lengths, n, cutoff, p)


def backward(
    harmonics: ModuleType,
    radial: ModuleType,
    grad_harmonics: Tensor,
    grad_radial: Tensor,
    grad_envelope: Tensor,
    vectors: Tensor,
    lmax: int,
    cutoff: float,
    p: int,
) -> Tensor:
    """Gradient by the vectors `[E, 3]`."""
    lengths, inverse = _lengths(vectors)
    by_lengths = radial.backward_with_envelope(grad_radial, grad_envelope, lengths, cutoff, p)
    by_vectors = harmonics.backward(grad_harmonics, vectors, lmax, *_OPTIONS)
    return torch.addcmul(by_vectors, vectors, (by_lengths * inverse)[:, None])


def double_backward(
    harmonics: ModuleType,
    radial: ModuleType,
    grad_grad: Tensor,
    grad_harmonics: Tensor,
    grad_radial: Tensor,
    grad_envelope: Tensor,
    vectors: Tensor,
    lmax: int,
    cutoff: float,
    p: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <grad_grad, backward(..)> by the three cotangents and by the vectors.

    <grad_grad, u> = t, and its derivative by r is (grad_grad - t u) / d.
    """
    lengths, inverse = _lengths(vectors)
    along = torch.linalg.vecdot(grad_grad, vectors) * inverse
    cotangents = (grad_radial, grad_envelope, lengths, cutoff, p)
    by_grad_radial, by_grad_envelope, by_lengths = radial.double_backward_with_envelope(along, *cotangents)
    slope = radial.backward_with_envelope(*cotangents) * inverse
    by_grad_harmonics, by_vectors = harmonics.double_backward(grad_grad, grad_harmonics, vectors, lmax, *_OPTIONS)
    radially = (by_lengths - slope * along) * inverse
    by_vectors = by_vectors + vectors * radially[:, None] + grad_grad * slope[:, None]
    return by_grad_harmonics, by_grad_radial, by_grad_envelope, by_vectors


def _lengths(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """d and 1/d `[E]`; where d is 0, so is its inverse here."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    return lengths, torch.where(lengths > 0, lengths.reciprocal(), 0)
