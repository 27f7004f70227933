"""Neighbor attention: edge softmax and neighbor tensor product as one call.

    α = edge_softmax(query, key, sink, harmonics, radial, envelope)
    z = neighbor_tensor_product(α, radial, radial_gain, value, harmonics)

One operator, so that a backend may keep α in registers and recompute it in the backward passes.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.checks import check_floating, check_graph, check_shapes
from sdas_kernels.ops.neighbor_attention import autograd, flops
from sdas_kernels.ops.neighbor_tensor_product import paths_of, sum_paths

register(Backend("neighbor_attention", "reference", f"{__name__}.reference"))
register(
    Backend("neighbor_attention", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available)
)
register(triton_support.backend("neighbor_attention", f"{__name__}.triton"))
register_ladder("neighbor_attention", flops)


@in_operand_dtype
def neighbor_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    value: torch.Tensor,
    radial_gain: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    graph: NeighborGraph | EdgeIndex,
    lmax_out: int,
    even_only: bool = True,
    path_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend over neighbors and sum the tensor products of their features with the harmonics of the edges.

    Args:
        query: `[N, K, D + M2 + n]`, scaled; key: `[N, K, D]`; sink: `[N, K]` (see `edge_softmax`).
        value: `[N, M1, C]`; radial_gain: `[K, L2+1, n]` (see `neighbor_tensor_product`).
        harmonics: `[E, M2]`; radial: `[E, n]`; envelope: `[E]`.
        graph: edges sorted by receiver.
        lmax_out: highest degree of the result.
        even_only: only paths with l1 + l2 + l3 even.
        path_weight: `[paths, C]`, optional; sums the paths of each degree.

    Returns:
        `[N, rows, C]`, rows ordered by l3, m3, path; or `[N, (lmax_out+1)², C]` with `path_weight`.
        Twice differentiable in every tensor.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, dtype or device.
    """
    op = "neighbor_attention"
    edges = graph.edges if isinstance(graph, NeighborGraph) else graph
    named = {"query": query, "key": key, "sink": sink, "value": value, "radial_gain": radial_gain}
    check_floating(op, **named, harmonics=harmonics, radial=radial, envelope=envelope)
    check_graph(op, edges, value)
    sizes = {"N": edges.num_nodes, "E": edges.num_edges}
    check_shapes(
        op,
        sizes,
        key=(key, ("N", "K", "D")),
        harmonics=(harmonics, ("E", "M2")),
        radial=(radial, ("E", "n")),
        envelope=(envelope, ("E",)),
        sink=(sink, ("N", "K")),
        value=(value, ("N", "M1", "C")),
    )
    paths = paths_of(op, value, harmonics, lmax_out, even_only)
    sizes["D + M2 + n"] = sizes["D"] + sizes["M2"] + sizes["n"]
    sizes["L2 + 1"] = paths.lmax_harmonics + 1
    check_shapes(op, sizes, query=(query, ("N", "K", "D + M2 + n")), radial_gain=(radial_gain, ("K", "L2 + 1", "n")))
    if sizes["C"] % sizes["K"]:
        raise ValueError(f"{op}: {sizes['C']} channels cannot be split evenly among {sizes['K']} heads")
    operands = [t.contiguous() for t in (query, key, sink, value, radial_gain, harmonics, radial, envelope)]
    z = autograd.neighbor_attention(*operands, edges.tensors(), paths.lmax_out, paths.even_only)
    return z if path_weight is None else sum_paths(z, path_weight, paths)
