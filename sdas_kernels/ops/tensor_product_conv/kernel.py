"""The calls of the compiled kernels of the convolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.ops.tensor_product_conv.tables import Direction, Tables

_BLOCKS = 64  # into which the nodes are cut to sum the gradient by a shared weight


Graph = dict[str, Tensor]  # first places of nodes, the node at the other end of each edge, the edge at each place


def of_receivers(index: list[Tensor]) -> Graph:
    """The edges of each receiver."""
    return {"pointers": index[2], "neighbors": index[1]}


def of_senders(index: list[Tensor]) -> Graph:
    """The edges of each sender."""
    return {"pointers": index[4], "neighbors": index[0], "order": index[3]}


class Job:
    """Operands and tangents of so many edges, and the kernels on them."""

    def __init__(self, t: Tables, **operands: Tensor | None) -> None:
        self.t, self.operands = t, operands
        y, weight = operands["y"], operands["weight"]
        assert y is not None
        assert weight is not None
        self.like = y
        self.sizes = {"edges": len(y), "block": 1, "second_order": "y_step" in operands, "shared": weight.ndim == 1}

    def to_receivers(self, graph: Graph, **features: Tensor | None) -> Tensor:
        """From packed x (and its step): `[nodes, dim_out]`."""
        return self._reduce(self.t.to_receivers, graph, **features)

    def to_senders(self, graph: Graph, **features: Tensor | None) -> Tensor:
        """From the packed gradient: `[nodes, dim1]`."""
        return self._reduce(self.t.to_senders, graph, **features)

    def edge(self, graph: Graph, by_y: Tensor | None, by_weight: Tensor | None, **features: Tensor | None) -> None:
        """From packed x (and its step) and gradient of the receivers, those results that are not None."""
        nodes = len(graph["pointers"]) - 1
        sizes, partial_sums = self.sizes | {"nodes": nodes}, None
        if by_weight is not None and self.sizes["shared"]:
            sizes["block"] = max(1, -(-nodes // _BLOCKS))
            partial_sums = memory.empty((-(-nodes // sizes["block"]), len(by_weight)), by_weight)
        results = {"by_y": by_y, "by_weight": by_weight, "partial": partial_sums}
        _run("edge", sizes, self.t.to_receivers, self.operands | graph | features | results)

    def _reduce(self, direction: Direction, graph: Graph, **features: Tensor | None) -> Tensor:
        nodes = len(graph["pointers"]) - 1
        out = memory.empty((nodes, direction.sizes["out_dim"]), self.like)
        _run("reduce", self.sizes | {"nodes": nodes}, direction, self.operands | graph | features | {"out": out})
        return out


def pack(direction: Direction, features: Tensor) -> Tensor:
    """`[N, dim]` of what the direction starts from -> `[N, packed]`."""
    out = memory.empty((len(features), direction.sizes["in_width"]), features)
    sizes = {"nodes": len(features), "edges": 0, "block": 1, "second_order": False, "shared": False}
    _run("pack", sizes, direction, {"in": features, "out": out})
    return out


def _run(kernel: str, sizes: dict[str, int], direction: Direction, tensors: Mapping[str, Tensor | None]) -> None:
    given = {**direction.arrays, **tensors}
    addresses = {name: tensor.data_ptr() for name, tensor in given.items() if tensor is not None}
    dtype = str(direction.arrays["term_value"].dtype).removeprefix("torch.")
    run = getattr(native.extension(), f"tensor_product_conv_{kernel}_{dtype}")
    sources = given["in"]
    assert sources is not None
    run(direction.sizes | sizes | {"sources": len(sources)} | addresses, torch.get_num_threads())
