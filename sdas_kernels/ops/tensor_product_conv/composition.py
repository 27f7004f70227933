"""The convolution as gather, tensor product of every edge, and sum, by a backend module of `tensor_product`.

Its arrays have an edge axis, a channel axis and an order axis; the compiled kernels do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from sdas_kernels.ops.segment import of_receivers, of_senders, sum_to_receivers, sum_to_senders


def forward(product: ModuleType, x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str) -> Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[numel]` or `[E, numel]` -> `[N, dim_out]`."""
    return sum_to_receivers(product.forward(of_senders(x, index), y, weight, spec), index)


def backward(
    product: ModuleType,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    edge_grad, sent = of_receivers(grad, index), of_senders(x, index)
    by_sent, by_y, by_weight = product.backward(edge_grad, sent, y, weight, spec, needs)
    return sum_to_senders(by_sent, index) if needs[0] else by_sent, by_y, by_weight


def double_backward(
    product: ModuleType,
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight."""
    sent_step = None if grad_x is None else of_senders(grad_x, index)
    operands = of_receivers(grad, index), of_senders(x, index), y, weight
    by_edge_grad, by_sent, by_y, by_weight = product.double_backward(
        sent_step, grad_y, grad_weight, *operands, spec, needs
    )
    by_grad = sum_to_receivers(by_edge_grad, index) if needs[0] else by_edge_grad
    return by_grad, sum_to_senders(by_sent, index) if needs[1] else by_sent, by_y, by_weight
