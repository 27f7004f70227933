"""Attention weights over the neighbors of each atom, with geometry in the logit and a smooth end at the cutoff.

    e_ij^k = query_i^k · [key_j^k | Y(r̂_ij) | R(d_ij)]
    α_ij^k = f_ij exp(e_ij^k) / ( exp(sink_i^k) + Σ_j' f_ij' exp(e_ij'^k) )

The query carries one number per key channel, then one per harmonic, then one per radial function: what it looks for,
in which direction, and how far away. The envelope f multiplies inside the sum and the sink keeps the denominator away
from zero, so α is as smooth as f when a neighbor, the last one included, crosses the cutoff.

Where the paper's plain softmax is wanted, sink = -inf and f = 1 give it.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.checks import check_floating, check_graph, check_shapes
from sdas_kernels.ops.edge_softmax import autograd, flops

register(Backend("edge_softmax", "reference", f"{__name__}.reference"))
register(Backend("edge_softmax", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available))
register(triton_support.backend("edge_softmax", f"{__name__}.triton"))
register_ladder("edge_softmax", flops)


@in_operand_dtype
def edge_softmax(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    graph: NeighborGraph | EdgeIndex,
) -> torch.Tensor:
    """Attention weight of every edge and head.

    Args:
        query: `[N, K, D + M + n]`, already scaled (divide the first D by √D where that is wanted).
        key: `[N, K, D]`; D may be 0.
        sink: `[N, K]`, a logit that takes attention away from the neighbors; -inf switches it off.
        harmonics: `[E, M]` spherical harmonics of the edge vectors; M may be 0.
        radial: `[E, n]` radial basis; n may be 0.
        envelope: `[E]`, >= 0.
        graph: edges sorted by receiver.

    Returns:
        `[E, K]`. Twice differentiable in every tensor.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, dtype or device.
    """
    edges = graph.edges if isinstance(graph, NeighborGraph) else graph
    check_floating(
        "edge_softmax", query=query, key=key, sink=sink, harmonics=harmonics, radial=radial, envelope=envelope
    )
    check_graph("edge_softmax", edges, query)
    sizes = {"N": edges.num_nodes, "E": edges.num_edges}
    check_shapes(
        "edge_softmax",
        sizes,
        key=(key, ("N", "K", "D")),
        harmonics=(harmonics, ("E", "M")),
        radial=(radial, ("E", "n")),
        envelope=(envelope, ("E",)),
        sink=(sink, ("N", "K")),
    )
    sizes["D + M + n"] = sizes["D"] + sizes["M"] + sizes["n"]
    check_shapes("edge_softmax", sizes, query=(query, ("N", "K", "D + M + n")))
    tensors = [t.contiguous() for t in (query, key, sink, harmonics, radial, envelope)]
    return autograd.edge_softmax(*tensors, edges.tensors())
