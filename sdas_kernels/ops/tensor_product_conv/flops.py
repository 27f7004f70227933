"""FLOPs of the compiled kernels, from the shapes of the operands.

Counted are the channels that exist, not the lanes that fill a vector. What adds up the gradients by a shared weight of
blocks of nodes is not counted, as in `tensor_product`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sdas_kernels.ops.tensor_product import flops as product
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec
from sdas_kernels.ops.tensor_product_conv.tables import Shape, Tables, tables


def forward(x: Tensor, y: Tensor, weight: Tensor, index: Any, spec: str) -> int:
    """The numbers M and a reduction."""
    t = tables(spec, x.dtype)
    if t is None:
        sent, messages = _of_edges(y, spec)
        return product.forward(sent, y, weight, spec) + messages.numel()
    return len(y) * (_matrix(t) + _reduce(t))


def backward(grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, index: Any, spec: str, needs: Sequence[bool]) -> int:
    """A reduction to the senders, and the products of each edge; each makes the numbers M for itself."""
    t = tables(spec, x.dtype)
    if t is None:
        sent, messages = _of_edges(y, spec)
        return product.backward(messages, sent, y, weight, spec, needs) + (sent.numel() if needs[0] else 0)
    to_senders = _matrix(t) + _reduce(t, transposed=True) if needs[0] else 0
    edge = _matrix(t) + _edge(t) if needs[1] or needs[2] else 0
    return len(y) * (to_senders + edge + _results(t, weight, needs[1:]))


def double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: Any,
    spec: str,
    needs: Sequence[bool],
) -> int:
    """Two reductions and the products of each edge, all along the steps."""
    t = tables(spec, x.dtype)
    if t is None:
        sent, messages = _of_edges(y, spec)
        steps = None if grad_x is None else sent, grad_y, grad_weight
        added = (messages.numel() if needs[0] else 0) + (sent.numel() if needs[1] else 0)
        return product.double_backward(*steps, messages, sent, y, weight, spec, needs) + added
    matrices, moves = _matrix(t) * (1 if grad_y is None else 2), grad_x is not None
    to_receivers = matrices + _reduce_step(t, moves) if needs[0] else 0
    to_senders = matrices + _reduce_step(t, False, transposed=True) if needs[1] else 0
    edge = matrices + _edge_step(t, moves) if needs[2] or needs[3] else 0
    return len(y) * (to_receivers + to_senders + edge + _results(t, weight, needs[2:]))


def _of_edges(y: Tensor, spec: str) -> tuple[Tensor, Tensor]:
    """Features of the senders and messages, without memory."""
    dims = TensorProductSpec.parse(spec).dims
    sent, messages = (y.new_empty(len(y), dim, device="meta") for dim in (dims[0], dims[2]))
    return sent, messages


def _matrix(t: Tables) -> int:
    return 2 * sum(shape.terms for shape in t.shapes)


def _results(t: Tables, weight: Tensor, needs: Sequence[bool]) -> int:
    """From the numbers' gradients to those by y, and the sum of gradients by a shared weight."""
    return (_matrix(t) if needs[0] else 0) + (len(weight) if needs[1] and weight.ndim == 1 else 0)


def _in_dim(shape: Shape, transposed: bool) -> int:
    return shape.d3 if transposed else shape.d1


def _reduce(t: Tables, transposed: bool = False) -> int:
    """w x; M of it."""
    return sum(s.mul * (1 + 2 * s.d1 if s.diagonal else _in_dim(s, transposed) + 2 * s.d1 * s.d3) for s in t.shapes)


def _reduce_step(t: Tables, moves: bool, transposed: bool = False) -> int:
    """w x, w x' + w' x; M of them. `moves`: x' is not zero."""
    return sum(
        s.mul * (3 + (5 if moves else 2) * s.d1)
        if s.diagonal
        else s.mul * ((4 if moves else 2) * _in_dim(s, transposed) + 4 * s.d1 * s.d3)
        for s in t.shapes
    )


def _edge(t: Tables) -> int:
    """g M x and its sum, w g x and its sum."""
    return sum(s.mul * (3 + 2 * s.d1 if s.diagonal else 3 * s.d3 + 4 * s.d1 * s.d3) for s in t.shapes)


def _edge_step(t: Tables, moves: bool) -> int:
    """The same along the steps."""
    return sum(s.mul * (7 + (4 if moves else 2) * s.d1 if s.diagonal else 4 * s.d3 + 8 * s.d1 * s.d3) for s in t.shapes)
