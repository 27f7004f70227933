"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.transforms import by_rows

_OP = "spherical_harmonics"


@torch.library.custom_op("sdas_kernels::spherical_harmonics", mutates_args=())
def spherical_harmonics(vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    """`[B, 3]` -> `[B, (lmax+1)²]`."""
    return kernels(_OP, vectors).forward(vectors, lmax, normalize, normalization)


@torch.library.custom_op("sdas_kernels::spherical_harmonics_backward", mutates_args=())
def spherical_harmonics_backward(
    grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> torch.Tensor:
    """Gradient by the vectors, `[B, 3]`."""
    return kernels(_OP, vectors).backward(grad.contiguous(), vectors, lmax, normalize, normalization)


@torch.library.custom_op("sdas_kernels::spherical_harmonics_double_backward", mutates_args=())
def spherical_harmonics_double_backward(
    grad_grad: torch.Tensor, grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad `[B, M]` and by the vectors `[B, 3]`."""
    return kernels(_OP, vectors).double_backward(
        grad_grad.contiguous(), grad.contiguous(), vectors, lmax, normalize, normalization
    )


@spherical_harmonics.register_fake
def _(vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    return vectors.new_empty(vectors.shape[0], (lmax + 1) ** 2)


@spherical_harmonics_backward.register_fake
def _(grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str) -> torch.Tensor:
    return vectors.new_empty(vectors.shape)


@spherical_harmonics_double_backward.register_fake
def _(
    grad_grad: torch.Tensor, grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return grad.new_empty(grad.shape), vectors.new_empty(vectors.shape)


connect(_OP, by_rows)
