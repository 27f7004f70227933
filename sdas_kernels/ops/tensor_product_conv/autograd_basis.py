"""Registration of the derivative ladder of the convolution whose weights are hidden · basis.

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


@torch.library.custom_op("sdas_kernels::tensor_product_conv_basis", mutates_args=())
def tensor_product_conv_basis(
    x: torch.Tensor, y: torch.Tensor, hidden: torch.Tensor, basis: torch.Tensor, index: list[torch.Tensor], spec: str
) -> torch.Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[E, H]`, `[H, numel]` -> `[N, dim_out]`."""
    return kernels(_OP, x).basis_forward(x, y, hidden, basis, index, spec)


@torch.library.custom_op("sdas_kernels::tensor_product_conv_basis_backward", mutates_args=())
def tensor_product_conv_basis_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    hidden: torch.Tensor,
    basis: torch.Tensor,
    index: list[torch.Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by x, y, hidden and basis; one that `needs` does not ask for has no elements."""
    backward = kernels(_OP, x).basis_backward
    return backward(grad.contiguous(), x, y, hidden, basis, index, spec, needs)


@torch.library.custom_op("sdas_kernels::tensor_product_conv_basis_double_backward", mutates_args=())
def tensor_product_conv_basis_double_backward(
    grad_x: torch.Tensor | None,
    grad_y: torch.Tensor | None,
    grad_hidden: torch.Tensor | None,
    grad_basis: torch.Tensor | None,
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    hidden: torch.Tensor,
    basis: torch.Tensor,
    index: list[torch.Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad, x, y, hidden and basis; None stands for a gradient of zeros."""
    first = [None if g is None else g.contiguous() for g in (grad_x, grad_y, grad_hidden, grad_basis)]
    double_backward = kernels(_OP, x).basis_double_backward
    return double_backward(*first, grad.contiguous(), x, y, hidden, basis, index, spec, needs)


@tensor_product_conv_basis.register_fake
def _(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    return x.new_empty(x.shape[0], TensorProductSpec.parse(rest[-1]).dims[2])


@tensor_product_conv_basis_backward.register_fake
def _(grad: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    *operands, _, _, needs = rest
    by_x, by_y, by_hidden, by_basis = like(operands, needs)
    return by_x, by_y, by_hidden, by_basis


@tensor_product_conv_basis_double_backward.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    by_grad, by_x, by_y, by_hidden, by_basis = like(arguments[4:9], arguments[-1])
    return by_grad, by_x, by_y, by_hidden, by_basis


connect("tensor_product_conv_basis")
