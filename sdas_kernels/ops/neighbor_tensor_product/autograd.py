"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward.

Operands are attention, radial, radial_gain, value, harmonics; `index` holds the graph's index tensors.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.paths import Paths

_OP = "neighbor_tensor_product"


@torch.library.custom_op("sdas_kernels::neighbor_tensor_product", mutates_args=())
def neighbor_tensor_product(
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> torch.Tensor:
    """`[N, rows, C]`."""
    forward = kernels(_OP, value).forward
    return forward(attention, radial, radial_gain, value, harmonics, index, lmax_out, even_only)


@torch.library.custom_op("sdas_kernels::neighbor_tensor_product_backward", mutates_args=())
def neighbor_tensor_product_backward(
    grad: torch.Tensor,
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by the five operands."""
    backward = kernels(_OP, value).backward
    return backward(grad.contiguous(), attention, radial, radial_gain, value, harmonics, index, lmax_out, even_only)


@torch.library.custom_op("sdas_kernels::neighbor_tensor_product_double_backward", mutates_args=())
def neighbor_tensor_product_double_backward(
    grad_attention: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_radial_gain: torch.Tensor,
    grad_value: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad: torch.Tensor,
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad and the five operands."""
    tangents = (grad_attention, grad_radial, grad_radial_gain, grad_value, grad_harmonics)
    double_backward = kernels(_OP, value).double_backward
    return double_backward(
        *(t.contiguous() for t in tangents),
        grad.contiguous(), attention, radial, radial_gain, value, harmonics, index, lmax_out, even_only,
    )  # fmt: skip


@neighbor_tensor_product.register_fake
def _(attention: Any, radial: Any, radial_gain: Any, value: torch.Tensor, *rest: Any) -> torch.Tensor:
    lmax_out, even_only = rest[2:]
    paths = Paths(math.isqrt(int(value.shape[1])) - 1, int(radial_gain.shape[1]) - 1, lmax_out, even_only)
    return value.new_empty(value.shape[0], paths.rows, value.shape[2])


@neighbor_tensor_product_backward.register_fake
def _(grad: torch.Tensor, *operands: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in operands[:5])


@neighbor_tensor_product_double_backward.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in arguments[5:11])


connect(_OP)
