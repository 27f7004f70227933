"""Sum over neighbors of the tensor product of their features with the harmonics of the edge.

    w_ij^{k,l}          = α_ij^k Σ_n W_{k,l,n} R_n(d_ij)
    A_i[c, l1m1, l2m2]  = Σ_j w_ij^{k(c),l2} v_j[c, l1m1] Y_l2m2(r̂_ij)
    z_i[path, c, l3m3]  = Σ_{m1,m2} C^{l3m3}_{l1m1,l2m2} A_i[c, l1m1, l2m2]         path = (l1, l2, l3)

The Clebsch–Gordan contraction follows the sum, once per node: the sum over neighbors is linear. The C channels are
split evenly among the K heads, head k owning the channels k·C/K .. (k+1)·C/K.
"""

from __future__ import annotations

import math

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.arguments import whole_number
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.checks import check_floating, check_graph, check_shapes
from sdas_kernels.ops.neighbor_tensor_product import autograd, flops
from sdas_kernels.paths import Paths

register(Backend("neighbor_tensor_product", "reference", f"{__name__}.reference"))
register(
    Backend(
        "neighbor_tensor_product", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available
    )
)
register(triton_support.backend("neighbor_tensor_product", f"{__name__}.triton"))
register_ladder("neighbor_tensor_product", flops)


@in_operand_dtype
def neighbor_tensor_product(
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    graph: NeighborGraph | EdgeIndex,
    lmax_out: int,
    even_only: bool = True,
    path_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gather, weight, couple and sum, without an edge tensor that has channels where a fused backend serves.

    Args:
        attention: `[E, K]`, the weight of each edge and head.
        radial: `[E, n]`, radial basis.
        radial_gain: `[K, L2+1, n]`, signed gain per head and degree of the harmonics.
        value: `[N, M1, C]`, features of the senders, M1 = (L1+1)²; K divides C.
        harmonics: `[E, M2]`, M2 = (L2+1)².
        graph: edges sorted by receiver.
        lmax_out: highest degree of the result.
        even_only: only paths with l1 + l2 + l3 even (`sdas_kernels.paths.Paths`).
        path_weight: `[paths, C]`, optional; sums the paths of each degree with a weight per path and channel.

    Returns:
        `[N, rows, C]`, rows ordered by l3, m3, path; or `[N, (lmax_out+1)², C]` with `path_weight`.
        Twice differentiable in every tensor.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, dtype or device.
    """
    op = "neighbor_tensor_product"
    edges = graph.edges if isinstance(graph, NeighborGraph) else graph
    check_floating(op, attention=attention, radial=radial, radial_gain=radial_gain, value=value, harmonics=harmonics)
    check_graph(op, edges, value)
    sizes = {"N": edges.num_nodes, "E": edges.num_edges}
    check_shapes(
        op,
        sizes,
        attention=(attention, ("E", "K")),
        radial=(radial, ("E", "n")),
        radial_gain=(radial_gain, ("K", "L2 + 1", "n")),
        value=(value, ("N", "M1", "C")),
        harmonics=(harmonics, ("E", "M2")),
    )
    paths = paths_of(op, value, harmonics, lmax_out, even_only)
    if sizes["C"] % sizes["K"]:
        raise ValueError(f"{op}: {sizes['C']} channels cannot be split evenly among {sizes['K']} heads")
    if sizes["L2 + 1"] != paths.lmax_harmonics + 1:
        raise ValueError(
            f"{op}: radial_gain must be [K, L2 + 1, n] with L2 = {paths.lmax_harmonics}, as harmonics has, "
            f"got {list(radial_gain.shape)}"
        )
    operands = [t.contiguous() for t in (attention, radial, radial_gain, value, harmonics)]
    z = autograd.neighbor_tensor_product(*operands, edges.tensors(), paths.lmax_out, paths.even_only)
    return z if path_weight is None else sum_paths(z, path_weight, paths)


def sum_paths(z: torch.Tensor, path_weight: torch.Tensor, paths: Paths) -> torch.Tensor:
    """Σ over the paths of each degree with a weight per path and channel: `[N, rows, C]` -> `[N, M, C]`."""
    check_floating("neighbor_tensor_product", value=z, path_weight=path_weight)
    if path_weight.shape != (len(paths.all), z.shape[2]):
        raise ValueError(
            f"neighbor_tensor_product: path_weight must be [{len(paths.all)}, {z.shape[2]}], "
            f"got {list(path_weight.shape)}"
        )
    weights = path_weight.split(paths.counts)
    blocks = [
        z[:, rows].unflatten(1, (2 * l3 + 1, count))
        for l3, (rows, count) in enumerate(zip(paths.row_slices(), paths.counts, strict=True))
    ]
    return torch.cat([(block * w).sum(2) for block, w in zip(blocks, weights, strict=True)], 1)


def paths_of(op: str, value: torch.Tensor, harmonics: torch.Tensor, lmax_out: int, even_only: bool) -> Paths:
    """The paths that the shapes of value `[N, M1, C]` and harmonics `[E, M2]` imply."""
    degrees = []
    for name, rows in (("value", value.shape[1]), ("harmonics", harmonics.shape[1])):
        lmax = math.isqrt(rows) - 1
        if rows < 1 or (lmax + 1) ** 2 != rows or lmax > LMAX:
            raise ValueError(f"{op}: {name} has {rows} rows, wanted (lmax + 1)² with lmax 0..{LMAX}")
        degrees.append(lmax)
    lmax_out = whole_number(op, "lmax_out", lmax_out, 0, LMAX)
    return Paths(degrees[0], degrees[1], lmax_out, bool(even_only))
