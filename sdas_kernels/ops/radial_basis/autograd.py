"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.transforms import by_rows

_OP = "radial_basis"


@torch.library.custom_op("sdas_kernels::radial_basis", mutates_args=())
def radial_basis(lengths: torch.Tensor, n: int, cutoff: float, p: int) -> torch.Tensor:
    """`[E]` -> `[E, n]`."""
    return kernels(_OP, lengths).forward(lengths, n, cutoff, p)


@torch.library.custom_op("sdas_kernels::radial_basis_backward", mutates_args=())
def radial_basis_backward(grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int) -> torch.Tensor:
    """Gradient by the lengths, `[E]`."""
    return kernels(_OP, lengths).backward(grad.contiguous(), lengths, cutoff, p)


@torch.library.custom_op("sdas_kernels::radial_basis_double_backward", mutates_args=())
def radial_basis_double_backward(
    grad_grad: torch.Tensor, grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad `[E, n]` and by the lengths `[E]`."""
    return kernels(_OP, lengths).double_backward(grad_grad.contiguous(), grad.contiguous(), lengths, cutoff, p)


@radial_basis.register_fake
def _(lengths: torch.Tensor, n: int, cutoff: float, p: int) -> torch.Tensor:
    return lengths.new_empty(lengths.shape[0], n)


@radial_basis_backward.register_fake
def _(grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int) -> torch.Tensor:
    return lengths.new_empty(lengths.shape)


@radial_basis_double_backward.register_fake
def _(
    grad_grad: torch.Tensor, grad: torch.Tensor, lengths: torch.Tensor, cutoff: float, p: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return grad.new_empty(grad.shape), lengths.new_empty(lengths.shape)


connect(_OP, by_rows)
