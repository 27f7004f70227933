"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.needs import asked_for
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec

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


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, y, weight, ctx.spec = inputs
    ctx.save_for_backward(x, y, weight)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:3])
    gradients = tensor_product_backward(grad, *ctx.saved_tensors, ctx.spec, needs)
    return *asked_for(gradients, needs), None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    grad, x, y, weight, ctx.spec, ctx.needs = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad, x, y, weight)


def _differentiate_backward(ctx: Any, *first: torch.Tensor | None) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:4])
    given = asked_for(first, ctx.needs)
    gradients = tensor_product_double_backward(*given, *ctx.saved_tensors, ctx.spec, needs)
    return *asked_for(gradients, needs), None, None


tensor_product.register_autograd(_differentiate, setup_context=_save)
tensor_product_backward.register_autograd(_differentiate_backward, setup_context=_save_backward)
