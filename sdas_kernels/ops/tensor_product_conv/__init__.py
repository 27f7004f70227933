"""Convolution over neighbors: gather, tensor product with a weight per edge, sum to the receivers.

    z_i = Σ_{edges e = (i ← j)} T(x_j, y_e, w_e)

with T the tensor product of `sdas_kernels.ops.tensor_product`: its irreps, paths, connection modes, factors and order
of the weights are those of e3nn's `TensorProduct`. This is the message passing of NequIP and MACE: x the features of
the atoms, y the spherical harmonics of the edges, `uvu` paths, w a function of the distance.
"""

from __future__ import annotations

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.checks import check_floating, check_graph, check_shapes
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product_conv import autograd, autograd_basis, flops, flops_basis

__all__ = ["tensor_product_conv"]

register(Backend("tensor_product_conv", "reference", f"{__name__}.reference"))
register(
    Backend("tensor_product_conv", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available)
)
register(triton_support.backend("tensor_product_conv", f"{__name__}.triton", (*triton_support.DTYPES, torch.float16)))
register_ladder("tensor_product_conv", flops)
register_ladder("tensor_product_conv_basis", flops_basis)


@in_operand_dtype
def tensor_product_conv(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    graph: NeighborGraph | EdgeIndex,
    spec: TensorProductSpec | str,
    weight_basis: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over each atom's neighbors of the tensor product of their features with what the edge carries.

    Args:
        x: `[N, irreps_in1.dim]`, features of the senders in e3nn's layout (`mul_ir`), any floating dtype.
        y: `[E, irreps_in2.dim]`, of each edge, of the same dtype and device; the spherical harmonics, as a rule.
        weight: `[E, weight_numel]`, or `[weight_numel]` for one weight of all edges; may be None where no path has one.
        graph: edges sorted by receiver.
        spec: irreps and paths, a `TensorProductSpec` or its string.
        weight_basis: `[H, weight_numel]`, optional: the matrix of the last layer of a network whose last hidden layer
            `weight` then is, `[E, H]`. The weights are weight · weight_basis; on the CPU they are never written for all
            edges.

    Returns:
        `[N, irreps_out.dim]`; zero for an atom without neighbors and in entries that no path reaches. Twice
        differentiable by x, y, the weight and its basis.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, dtype or device.
    """
    op = "tensor_product_conv"
    if isinstance(spec, str):
        spec = TensorProductSpec.parse(spec)
    if not isinstance(spec, TensorProductSpec):
        raise TypeError(f"{op}: spec must be a TensorProductSpec or its string, got {type(spec).__name__}")
    numel, (dim1, dim2, _) = spec.weight_numel, spec.dims
    if weight is None:
        if weight_basis is not None:
            raise ValueError(f"{op}: weight must be [E, H] where there is a weight_basis, got None")
        if numel:
            raise ValueError(f"{op}: weight must be [{numel}] or [E, {numel}], got None")
        check_floating(op, x=x, y=y)
        weight = x.new_empty(0)
    check_floating(op, x=x, y=y, weight=weight, **({} if weight_basis is None else {"weight_basis": weight_basis}))
    edges = graph.edges if isinstance(graph, NeighborGraph) else graph
    check_graph(op, edges, x)
    sizes = {"N": edges.num_nodes, "E": edges.num_edges, "dim1": dim1, "dim2": dim2, "numel": numel}
    check_shapes(op, sizes, x=(x, ("N", "dim1")), y=(y, ("E", "dim2")))
    if weight_basis is not None:
        check_shapes(op, sizes, weight=(weight, ("E", "H")), weight_basis=(weight_basis, ("H", "numel")))
        operands = [t.contiguous() for t in (x, y, weight, weight_basis)]
        return autograd_basis.tensor_product_conv_basis(*operands, edges.tensors(), spec.text)
    check_shapes(op, sizes, weight=(weight, ("numel",) if weight.ndim == 1 else ("E", "numel")))
    operands = [t.contiguous() for t in (x, y, weight)]
    return autograd.tensor_product_conv(*operands, edges.tensors(), spec.text)
