"""The compiled convolution whose weights are hidden · basis, by blocks of nodes, so that no `[E, numel]` is written.

A block's weights are a matrix product of PyTorch's, some hundred rows that stay in the caches, made anew for each
contraction. The formulas of the derivatives stand in `composition.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from sdas_kernels import memory
from sdas_kernels.ops.tensor_product_conv.kernel import Graph, Job, pack
from sdas_kernels.ops.tensor_product_conv.tables import Tables

_NUMBERS = 1 << 18  # of a block's weights


class _Block(NamedTuple):
    """Some nodes of a sorted list, the places of their edges, and their edges as a graph of its own."""

    nodes: slice
    places: slice
    graph: Graph


def _blocks(pointers: Tensor, neighbors: Tensor, numel: int) -> Iterator[_Block]:
    """Nodes with about so many edges that their weights are `_NUMBERS`; one node at least."""
    starts, first, most = pointers.tolist(), 0, max(1, _NUMBERS // max(numel, 1))
    while first < len(starts) - 1:
        last = max(first + 1, bisect_right(starts, starts[first] + most) - 1)
        places = slice(starts[first], starts[last])
        graph = {"pointers": pointers[first : last + 1] - starts[first], "neighbors": neighbors[places]}
        yield _Block(slice(first, last), places, graph)
        first = last


class Radial(NamedTuple):
    """The weights' factors, and their steps, None for zero."""

    hidden: Tensor  # [E, H]
    basis: Tensor  # [H, numel]
    hidden_step: Tensor | None = None
    basis_step: Tensor | None = None

    def of(self, edges: slice | Tensor) -> Radial:
        """Those of some edges."""
        step = None if self.hidden_step is None else self.hidden_step[edges]
        return self._replace(hidden=self.hidden[edges], hidden_step=step)

    def weight(self) -> Tensor:
        """hidden · basis."""
        return self.hidden @ self.basis

    def weight_step(self) -> Tensor | None:
        """hidden' · basis + hidden · basis'."""
        terms = [] if self.hidden_step is None else [self.hidden_step @ self.basis]
        terms += [] if self.basis_step is None else [self.hidden @ self.basis_step]
        return sum(terms[1:], terms[0]) if terms else None


def forward(t: Tables, x: Tensor, y: Tensor, radial: Radial, index: list[Tensor]) -> Tensor:
    """`[N, dim_out]`."""
    packed = {"in": pack(t.to_receivers, x)}
    out = memory.empty((len(x), t.to_receivers.sizes["out_dim"]), x)
    for block in _blocks(index[2], index[1], radial.basis.shape[1]):
        job = Job(t, y=y[block.places], weight=radial.of(block.places).weight())
        out[block.nodes] = job.to_receivers(block.graph, **packed)
    return out


def backward(
    t: Tables, grad: Tensor, x: Tensor, y: Tensor, radial: Radial, index: list[Tensor], needs: Sequence[bool]
) -> list[Tensor]:
    """Gradients by x, y, hidden and basis, each where `needs` says so, else of no elements."""
    packed_grad, found = pack(t.to_senders, grad), _results((x, y, radial.hidden, radial.basis), needs)
    if needs[0]:
        _to_senders(found[0], t, packed_grad, y, None, radial, index, False)
    if any(needs[1:]):
        packed = {"in": pack(t.to_receivers, x)}
        for block in _blocks(index[2], index[1], radial.basis.shape[1]):
            own = radial.of(block.places)
            weight = own.weight()
            by_y, by_weight = found[1][block.places] if needs[1] else None, memory.empty_like(weight)
            job = Job(t, y=y[block.places], weight=weight)
            job.edge(block.graph, by_y, by_weight, grad=packed_grad[block.nodes], **packed)
            _add_radial(found[2:], by_weight, own.hidden, own.basis, block.places, needs[2:])
    return found


def double_backward(
    t: Tables,
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    radial: Radial,
    index: list[Tensor],
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of the backward along the steps by grad, x, y, hidden and basis."""
    packed_grad, found = pack(t.to_senders, grad), _results((grad, x, y, radial.hidden, radial.basis), needs)
    if needs[1]:
        _to_senders(found[1], t, packed_grad, y, grad_y, radial, index, True)
    if not (needs[0] or any(needs[2:])):
        return found
    packed = {"in": pack(t.to_receivers, x)}
    moved = packed | {"in_step": None if grad_x is None else pack(t.to_receivers, grad_x)}
    for block in _blocks(index[2], index[1], radial.basis.shape[1]):
        own, y_own, grad_own = radial.of(block.places), y[block.places], packed_grad[block.nodes]
        y_step = None if grad_y is None else grad_y[block.places]
        weight, weight_step = own.weight(), own.weight_step()
        job = Job(t, y=y_own, weight=weight, y_step=y_step, weight_step=weight_step)
        if needs[0]:
            found[0][block.nodes] = job.to_receivers(block.graph, **moved)
        if any(needs[2:]):
            by_y, by_weight = found[2][block.places] if needs[2] else None, memory.empty_like(weight)
            job.edge(block.graph, by_y, by_weight, grad=grad_own, **moved)
            _add_radial(found[3:], by_weight, own.hidden, own.basis, block.places, needs[3:])
        if any(needs[3:]) and weight_step is not None:
            Job(t, y=y_own, weight=weight).edge(block.graph, None, by_weight, grad=grad_own, **packed)
            _add_radial(found[3:], by_weight, own.hidden_step, own.basis_step, block.places, needs[3:])
    return found


def _results(operands: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    return [t.new_zeros(t.shape if need else 0) for t, need in zip(operands, needs, strict=True)]


def _to_senders(
    by_x: Tensor,
    t: Tables,
    packed_grad: Tensor,
    y: Tensor,
    y_step: Tensor | None,
    radial: Radial,
    index: list[Tensor],
    second_order: bool,
) -> None:
    receivers, _, _, sender_order, sender_ptr = index
    for block in _blocks(sender_ptr, sender_order, radial.basis.shape[1]):
        edges = block.graph["neighbors"]
        own = radial.of(edges)
        steps: dict[str, Tensor | None] = {}
        if second_order:
            steps = {"y_step": None if y_step is None else y_step[edges], "weight_step": own.weight_step()}
        job = Job(t, y=y[edges], weight=own.weight(), **steps)
        by_x[block.nodes] = job.to_senders(block.graph | {"neighbors": receivers[edges]}, **{"in": packed_grad})


def _add_radial(
    found: Sequence[Tensor],
    by_weight: Tensor,
    hidden: Tensor | None,
    basis: Tensor | None,
    edges: slice,
    needs: Sequence[bool],
) -> None:
    """by_weight basisᵀ and hiddenᵀ by_weight, where they are wanted and not zero."""
    if needs[0] and basis is not None:
        found[0][edges] += by_weight @ basis.T
    if needs[1] and hidden is not None:
        found[1].add_(hidden.T @ by_weight)
