"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward.

`index` holds the graph's index tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.ops.needs import like
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec

_OP = "tensor_product_conv"


@torch.library.custom_op("sdas_kernels::tensor_product_conv", mutates_args=())
def tensor_product_conv(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, index: list[torch.Tensor], spec: str
) -> torch.Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[numel]` or `[E, numel]` -> `[N, dim_out]`."""
    return kernels(_OP, x).forward(x, y, weight, index, spec)


@torch.library.custom_op("sdas_kernels::tensor_product_conv_backward", mutates_args=())
def tensor_product_conv_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    index: list[torch.Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by x, y and the weight; one that `needs` does not ask for has no elements."""
    return kernels(_OP, x).backward(grad.contiguous(), x, y, weight, index, spec, needs)


@torch.library.custom_op("sdas_kernels::tensor_product_conv_double_backward", mutates_args=())
def tensor_product_conv_double_backward(
    grad_x: torch.Tensor | None,
    grad_y: torch.Tensor | None,
    grad_weight: torch.Tensor | None,
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    index: list[torch.Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad, x, y and the weight; None stands for a gradient of zeros."""
    first = [None if g is None else g.contiguous() for g in (grad_x, grad_y, grad_weight)]
    return kernels(_OP, x).double_backward(*first, grad.contiguous(), x, y, weight, index, spec, needs)


@tensor_product_conv.register_fake
def _(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, index: list[torch.Tensor], spec: str) -> torch.Tensor:
    return x.new_empty(x.shape[0], TensorProductSpec.parse(spec).dims[2])


@tensor_product_conv_backward.register_fake
def _(grad: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    *operands, _, _, needs = rest
    by_x, by_y, by_weight = like(operands, needs)
    return by_x, by_y, by_weight


@tensor_product_conv_double_backward.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    by_grad, by_x, by_y, by_weight = like(arguments[3:7], arguments[-1])
    return by_grad, by_x, by_y, by_weight


connect(_OP)
