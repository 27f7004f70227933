"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

from typing import Any

import torch

from sdas_kernels.dispatch import kernels

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
def _(
    grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> torch.Tensor:
    return vectors.new_empty(vectors.shape)


@spherical_harmonics_double_backward.register_fake
def _(
    grad_grad: torch.Tensor, grad: torch.Tensor, vectors: torch.Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return grad.new_empty(grad.shape), vectors.new_empty(vectors.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    vectors, *ctx.options = inputs
    ctx.save_for_backward(vectors)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    (vectors,) = ctx.saved_tensors
    return spherical_harmonics_backward(grad, vectors, *ctx.options), None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    grad, vectors, *ctx.options = inputs
    ctx.save_for_backward(grad, vectors)


def _differentiate_backward(ctx: Any, grad_grad: torch.Tensor) -> tuple[Any, ...]:
    grad, vectors = ctx.saved_tensors
    by_grad, by_vectors = spherical_harmonics_double_backward(grad_grad, grad, vectors, *ctx.options)
    return by_grad, by_vectors, None, None, None


spherical_harmonics.register_autograd(_differentiate, setup_context=_save)
spherical_harmonics_backward.register_autograd(_differentiate_backward, setup_context=_save_backward)
