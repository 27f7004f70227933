"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.transforms import by_rows

_OP = "edge_geometry"


@torch.library.custom_op("sdas_kernels::edge_geometry", mutates_args=())
def edge_geometry(
    vectors: torch.Tensor, lmax: int, n: int, cutoff: float, p: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`[E, 3]` -> `[E, (lmax+1)²]`, `[E, n]`, `[E]`."""
    return kernels(_OP, vectors).forward(vectors, lmax, n, cutoff, p)


@torch.library.custom_op("sdas_kernels::edge_geometry_backward", mutates_args=())
def edge_geometry_backward(
    grad_harmonics: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_envelope: torch.Tensor,
    vectors: torch.Tensor,
    lmax: int,
    cutoff: float,
    p: int,
) -> torch.Tensor:
    """Gradient by the vectors, `[E, 3]`."""
    grads = (grad_harmonics.contiguous(), grad_radial.contiguous(), grad_envelope.contiguous())
    return kernels(_OP, vectors).backward(*grads, vectors, lmax, cutoff, p)


@torch.library.custom_op("sdas_kernels::edge_geometry_double_backward", mutates_args=())
def edge_geometry_double_backward(
    grad_grad: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_envelope: torch.Tensor,
    vectors: torch.Tensor,
    lmax: int,
    cutoff: float,
    p: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by the three cotangents and by the vectors."""
    grads = (grad_harmonics.contiguous(), grad_radial.contiguous(), grad_envelope.contiguous())
    return kernels(_OP, vectors).double_backward(grad_grad.contiguous(), *grads, vectors, lmax, cutoff, p)


@edge_geometry.register_fake
def _(vectors: torch.Tensor, lmax: int, n: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    edges = vectors.shape[0]
    return vectors.new_empty(edges, (lmax + 1) ** 2), vectors.new_empty(edges, n), vectors.new_empty(edges)


@edge_geometry_backward.register_fake
def _(
    grad_harmonics: torch.Tensor, grad_radial: Any, grad_envelope: Any, vectors: torch.Tensor, *_: Any
) -> torch.Tensor:
    return vectors.new_empty(vectors.shape)


@edge_geometry_double_backward.register_fake
def _(grad_grad: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in arguments[:4])


connect(_OP, by_rows)
