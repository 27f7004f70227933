"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec
from sdas_kernels.transforms import by_rows, one_by_one

_OP = "tensor_product"


@torch.library.custom_op("sdas_kernels::tensor_product", mutates_args=())
def tensor_product(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str) -> torch.Tensor:
    """`[B, dim1]`, `[B, dim2]`, `[numel]` or `[B, numel]` -> `[B, dim_out]`."""
    return kernels(_OP, x).forward(x, y, weight, spec)


@torch.library.custom_op("sdas_kernels::tensor_product_backward", mutates_args=())
def tensor_product_backward(
    grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str, needs: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by x, y and the weight; one that `needs` does not ask for has no elements."""
    return kernels(_OP, x).backward(grad.contiguous(), x, y, weight, spec, needs)


@torch.library.custom_op("sdas_kernels::tensor_product_double_backward", mutates_args=())
def tensor_product_double_backward(
    grad_x: torch.Tensor | None,
    grad_y: torch.Tensor | None,
    grad_weight: torch.Tensor | None,
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad, x, y and the weight; None stands for a gradient of zeros."""
    first = [None if g is None else g.contiguous() for g in (grad_x, grad_y, grad_weight)]
    return kernels(_OP, x).double_backward(*first, grad.contiguous(), x, y, weight, spec, needs)


@tensor_product.register_fake
def _(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str) -> torch.Tensor:
    return x.new_empty(x.shape[0], TensorProductSpec.parse(spec).dims[2])


def _like(operands: Sequence[torch.Tensor], needs: Sequence[bool]) -> list[torch.Tensor]:
    return [t.new_empty(t.shape if need else 0) for t, need in zip(operands, needs, strict=True)]


@tensor_product_backward.register_fake
def _(
    grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str, needs: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    by_x, by_y, by_weight = _like((x, y, weight), needs)
    return by_x, by_y, by_weight


@tensor_product_double_backward.register_fake
def _(
    grad_x: torch.Tensor | None,
    grad_y: torch.Tensor | None,
    grad_weight: torch.Tensor | None,
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    by_grad, by_x, by_y, by_weight = _like((grad, x, y, weight), needs)
    return by_grad, by_x, by_y, by_weight


def _map(op: Any, size: int, dims: Sequence[Any], arguments: Sequence[Any]) -> tuple[Any, Any]:
    """By samples; one by one where a weight that all samples share is mapped, or a gradient by it is wanted."""
    names = [argument.name for argument in op._schema.arguments]
    weight, step, needs = names.index("weight"), "grad_weight" in names and names.index("grad_weight"), arguments[-1]
    if arguments[weight].ndim - (dims[weight] is not None) == 2:
        return by_rows(op, size, dims, arguments)
    weights = [weight] if step is False else [weight, step]
    if any(dims[k] is not None for k in weights) or (names[-1] == "needs" and needs[-1]):
        return one_by_one(op, size, dims, arguments)
    return by_rows(op, size, dims, arguments, weights)


connect(_OP, _map)
