"""FLOPs of the fused network, from the shapes of its operands.

Geometry and attention count as the formulas of their operators say, linear maps two per weight, and what is done to
single numbers one per operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdas_kernels.fused_sdas.weights import Sizes
from sdas_kernels.ops.neighbor_attention import flops as attention
from sdas_kernels.ops.radial_basis import flops as radial_basis
from sdas_kernels.paths import coupling

_ALL = (True,) * 8
_BUT_WEIGHTS = (True,) * 4 + (False,) + (True,) * 3
_GEOMETRY = (False,) * 5 + (True,) * 3  # the first layer's other operands do not depend on the vectors
_HARMONIC = 6  # of each harmonic and order of derivative: a product by a power, recurrence, scale


def forward(vectors: Tensor, kinds: Tensor, weights: Sequence[Tensor], index: Any, *rest: Any) -> int:
    """Energies, and back from them to the vectors."""
    sizes = Sizes.of(weights, rest[1])
    edges, nodes = vectors.shape[0], kinds.shape[0]
    total = _geometry(edges, sizes, orders=2)
    for layer in range(sizes.layers):
        operands = _attention(nodes, edges, layer, sizes)
        grad = operands[3].new_empty(nodes, sizes.paths(layer).rows, sizes.channels)
        needs = _GEOMETRY if layer == 0 else _BUT_WEIGHTS
        total += attention.forward(*operands) + attention.backward(grad, *operands, needs)
        inputs = _inputs(layer, sizes, rows=1) if layer == 0 else 2 * _inputs(layer, sizes)
        total += nodes * (2 * _update(layer, sizes) + 2 * _product(sizes) + inputs)
    return total


def backward(
    by_energy: Any, by_gradient: Any, state: Any, vectors: Tensor, kinds: Tensor, weights: Sequence[Tensor], *rest: Any
) -> int:
    """Tangents along the steps of the vectors, cotangents of values and tangents, and the gradients by weights."""
    _, _, even_only, for_vectors, for_weights = rest
    sizes = Sizes.of(weights, even_only)
    edges, nodes = vectors.shape[0], kinds.shape[0]
    total = _geometry(edges, sizes, orders=2 if for_vectors else 1)
    for layer in range(sizes.layers):
        operands = _attention(nodes, edges, layer, sizes)
        grad = operands[3].new_empty(nodes, sizes.paths(layer).rows, sizes.channels)
        total += attention.double_backward(*[None] * 8, grad, *operands) + attention.backward(grad, *operands, _ALL)
        halves = _update(layer, sizes) + _product(sizes), _inputs(layer, sizes) * (layer > 0)
        orders = 3 + 2 * for_weights  # tangent, cotangents of value and tangent; outer products of both
        total += nodes * orders * sum(halves)
        total += nodes * (1 + for_weights) * _inputs(layer, sizes) * (layer == 0)
    return total


def _geometry(edges: int, sizes: Sizes, orders: int) -> int:
    lengths = torch.empty(edges, device="meta")
    radial = torch.empty(edges, sizes.radials, device="meta")
    basis = radial_basis.forward(lengths, sizes.radials) + radial_basis.backward(radial)
    return (basis + edges * (2 * _HARMONIC * (sizes.lmax + 1) ** 2 + 12)) * orders // 2


def _attention(nodes: int, edges: int, layer: int, sizes: Sizes) -> tuple[Any, ...]:
    """Operands of the shapes that the attention of a layer has."""

    def shaped(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    K, D, n, M = sizes.heads, sizes.key_channels, sizes.radials, (sizes.lmax + 1) ** 2
    query, key, sink = shaped(nodes, K, D + M + n), shaped(nodes, K, D), shaped(nodes, K)
    value, gain = shaped(nodes, 1 if layer == 0 else M, sizes.channels), shaped(K, sizes.lmax + 1, n)
    edge_operands = shaped(edges, M), shaped(edges, n), shaped(edges)
    return query, key, sink, value, gain, *edge_operands, None, sizes.lmax, sizes.even_only


def _inputs(layer: int, sizes: Sizes, rows: int | None = None) -> int:
    """Of a node, of whose features so many rows are not zero: normalization and the maps to query, key, sink, value."""
    C, K, M = sizes.channels, sizes.heads, (sizes.lmax + 1) ** 2
    logits = (2 * sizes.key_channels + sizes.radials + 1) * K
    values = 1 if layer == 0 else M
    return 4 * M * C + 2 * C * (logits + (rows or M) * K + values * C) + logits


def _product(sizes: Sizes) -> int:
    """Of a node: normalization, products along the square paths, and their mixing."""
    paths, C = sizes.square_paths, sizes.channels
    if not paths.rows:
        return 0
    return 4 * (sizes.lmax + 1) ** 2 * C + 3 * int((coupling(paths) != 0).sum()) * C + 2 * paths.rows * C * C


def _update(layer: int, sizes: Sizes) -> int:
    """Of a node: mixing, normalization, invariants, their two maps, gates, products and readout.

    Of the last layer's output only the scalars are needed.
    """
    C, M, R, width = sizes.channels, (sizes.lmax + 1) ** 2, sizes.readout, (sizes.lmax + 1) * sizes.channels
    mixing = 2 * sizes.paths(layer).rows * C * C
    last = layer == sizes.layers - 1
    factors, gates = (C, 0) if last else (width, 2 * (M - 1) * C * C)
    maps = 2 * 2 * C * (width + factors) + gates + 2 * C * R + 2 * R
    single = 4 * M * C + 2 * M * C + 5 * 2 * C + 2 * M * C + 5 * R
    return mixing + maps + single
