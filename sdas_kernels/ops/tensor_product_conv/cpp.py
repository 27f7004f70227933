"""The convolution on the CPU by the compiled kernels of `csrc/cpu/tensor_product_conv.cpp`.

Three contractions make the ladder: `reduce` to the receivers, `reduce` with everything transposed to the senders, and
`edge` for y and the weight. A specification with paths that mix channels goes edge by edge through the tensor product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdas_kernels import native
from sdas_kernels.ops.tensor_product import cpp as product
from sdas_kernels.ops.tensor_product_conv import composition
from sdas_kernels.ops.tensor_product_conv.tables import Direction, Tables, tables

_BLOCKS = 64  # into which the nodes are cut to sum the gradient by a shared weight


class _Job:
    """The operands and tangents by edge, and the graph, common to the kernels of one call."""

    def __init__(self, t: Tables, index: list[Tensor], **operands: Tensor | None) -> None:
        receivers, senders, row_ptr, sender_order, sender_ptr = index
        self.t, self.operands = t, operands
        self.of_receivers = {"pointers": row_ptr, "neighbors": senders}
        self.of_senders = {"pointers": sender_ptr, "neighbors": receivers, "order": sender_order}
        weight = operands["weight"]
        assert weight is not None
        self.sizes = {
            "nodes": len(row_ptr) - 1,
            "edges": len(receivers),
            "block": 1,
            "second_order": "y_step" in operands,
            "shared": weight.ndim == 1,
        }

    def pack_in(self, x: Tensor) -> Tensor:
        """`[N, dim1]` -> `[N, packed]`."""
        return self._pack(self.t.to_receivers, x)

    def pack_out(self, grad: Tensor) -> Tensor:
        """`[N, dim_out]` -> `[N, packed]`."""
        return self._pack(self.t.to_senders, grad)

    def to_receivers(self, **features: Tensor | None) -> Tensor:
        """From packed x (and its step): `[N, dim_out]`."""
        return self._reduce(self.t.to_receivers, self.of_receivers, **features)

    def to_senders(self, **features: Tensor | None) -> Tensor:
        """From the packed gradient: `[N, dim1]`."""
        return self._reduce(self.t.to_senders, self.of_senders, **features)

    def edge(self, by_y: Tensor | None, by_weight: Tensor | None, **features: Tensor | None) -> None:
        """From packed x (and its step) and gradient, those results that are not None."""
        sizes, partial_sums = self.sizes, None
        if by_weight is not None and self.sizes["shared"]:
            sizes = sizes | {"block": max(1, -(-self.sizes["nodes"] // _BLOCKS))}
            partial_sums = by_weight.new_empty(-(-sizes["nodes"] // sizes["block"]), len(by_weight))
        results = {"by_y": by_y, "by_weight": by_weight, "partial": partial_sums}
        self._run("edge", sizes, self.t.to_receivers, **features, **self.of_receivers, **results)

    def _pack(self, direction: Direction, features: Tensor) -> Tensor:
        out = features.new_empty(len(features), direction.sizes["in_width"])
        self._run("pack", self.sizes, direction, **{"in": features, "out": out})
        return out

    def _reduce(self, direction: Direction, graph: dict[str, Tensor], **features: Tensor | None) -> Tensor:
        y = self.operands["y"]
        assert y is not None
        out = y.new_empty(self.sizes["nodes"], direction.sizes["out_dim"])
        self._run("reduce", self.sizes, direction, **graph, **features, out=out)
        return out

    def _run(self, kernel: str, sizes: dict[str, int], direction: Direction, **tensors: Tensor | None) -> None:
        given = {**direction.arrays, **self.operands, **tensors}
        addresses = {name: tensor.data_ptr() for name, tensor in given.items() if tensor is not None}
        dtype = str(direction.arrays["term_value"].dtype).removeprefix("torch.")
        run = getattr(native.extension(), f"tensor_product_conv_{kernel}_{dtype}")
        run(direction.sizes | sizes | addresses, torch.get_num_threads())


def forward(x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str) -> Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[numel]` or `[E, numel]` -> `[N, dim_out]`."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.forward(product, x, y, weight, index, spec)
    job = _Job(t, index, y=y, weight=weight)
    return job.to_receivers(**{"in": job.pack_in(x)})


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.backward(product, grad, x, y, weight, index, spec, needs)
    job = _Job(t, index, y=y, weight=weight)
    grad = job.pack_out(grad)
    found = [None, _like(y, needs[1]), _like(weight, needs[2])]
    if needs[0]:
        found[0] = job.to_senders(**{"in": grad})
    if needs[1] or needs[2]:
        job.edge(*found[1:], grad=grad, **{"in": job.pack_in(x)})
    by_x, by_y, by_weight = (x.new_empty(0) if result is None else result for result in found)
    return by_x, by_y, by_weight


def double_backward(
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
    t = tables(spec, x.dtype)
    if t is None:
        operands = grad_x, grad_y, grad_weight, grad, x, y, weight, index
        return composition.double_backward(product, *operands, spec, needs)
    job = _Job(t, index, y=y, weight=weight, y_step=grad_y, weight_step=grad_weight)
    found: list[Tensor | None] = [None, None, _like(y, needs[2]), _like(weight, needs[3])]
    packed: dict[str, Tensor | None] = {}
    if needs[0] or needs[2] or needs[3]:
        packed = {"in": job.pack_in(x), "in_step": None if grad_x is None else job.pack_in(grad_x)}
    if needs[0]:
        found[0] = job.to_receivers(**packed)
    if any(needs[1:]):
        grad = job.pack_out(grad)
    if needs[1]:
        found[1] = job.to_senders(**{"in": grad})
    if needs[2] or needs[3]:
        job.edge(found[2], found[3], grad=grad, **packed)
    by_grad, by_x, by_y, by_weight = (x.new_empty(0) if result is None else result for result in found)
    return by_grad, by_x, by_y, by_weight


def _like(tensor: Tensor, wanted: bool) -> Tensor | None:
    return torch.empty_like(tensor) if wanted else None
