"""The convolution as gather, tensor product of every edge, and sum, by a backend module of `tensor_product`.

Its arrays have an edge axis, a channel axis and an order axis; the compiled kernels do without. And the convolution
whose weights are hidden · basis, by that of given weights w: with w' = hidden' basis + hidden basis' along the steps,

    by_hidden = by_w basisᵀ + by_w' basis'ᵀ        by_basis = hiddenᵀ by_w + hidden'ᵀ by_w'

where in a double backward by_w' is the gradient by w of the first order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from sdas_kernels.segment import of_receivers, of_senders, sum_to_receivers, sum_to_senders


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


def basis_forward(
    convolve: Callable[..., Tensor], x: Tensor, y: Tensor, hidden: Tensor, basis: Tensor, index: list[Tensor], spec: str
) -> Tensor:
    """`[N, dim_out]`."""
    return convolve(x, y, hidden @ basis, index, spec)


def basis_backward(
    backward: Callable[..., tuple[Tensor, ...]],
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, y, hidden and basis, each where `needs` says so, else of no elements."""
    asked = [*needs[:2], any(needs[2:])]
    by_x, by_y, by_weight = backward(grad, x, y, hidden @ basis, index, spec, asked)
    none = x.new_empty(0)
    by_hidden = by_weight @ basis.T if needs[2] else none
    return by_x, by_y, by_hidden, hidden.T @ by_weight if needs[3] else none.clone()


def basis_double_backward(
    backward: Callable[..., tuple[Tensor, ...]],
    double_backward: Callable[..., tuple[Tensor, ...]],
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_hidden: Tensor | None,
    grad_basis: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <grad_*, basis_backward(grad, x, y, hidden, basis)> by grad, x, y, hidden and basis."""
    terms = [] if grad_hidden is None else [grad_hidden @ basis]
    terms += [] if grad_basis is None else [hidden @ grad_basis]
    grad_weight = sum(terms[1:], terms[0]) if terms else None
    given: tuple[Any, ...] = (grad, x, y, hidden @ basis, index, spec)
    asked = [*needs[:3], any(needs[3:])]
    by_grad, by_x, by_y, by_weight = double_backward(grad_x, grad_y, grad_weight, *given, asked)
    none = x.new_empty(0)
    by_hidden, by_basis = by_weight @ basis.T if needs[3] else none, hidden.T @ by_weight if needs[4] else none.clone()
    by_step = backward(*given, [False, False, True])[2] if terms and any(needs[3:]) else none
    if needs[3] and grad_basis is not None:
        by_hidden += by_step @ grad_basis.T
    if needs[4] and grad_hidden is not None:
        by_basis += grad_hidden.T @ by_step
    return by_grad, by_x, by_y, by_hidden, by_basis
