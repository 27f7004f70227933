"""The default SDAS network, whole: energies of atoms and their gradient by the vectors of the edges, in one call.

    y = x / rms(x)                        x' = x + Σ_paths M_path z,   z = neighbor_attention(linear maps of y)
    y' = x' / rms(x')                     x'' = x' + [f_0, f_l (G_l y'_l)],   f = MLP([y'_0, |y'_l|²])
    with a product at nodes, before that  x' ← x' + Σ_square paths P_path (y' ⊗ y')
    energy = Σ_layers readout(x''_0)      gradient_e = ∂ Σ_i energy_i / ∂ vector_e

For a molecule the time of a model is that of calling its many small parts, and for a large system much of it goes into
moving features between them: on a CPU one kernel runs all parts, a block of atoms at a time, and derives them by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels import native
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, kernels, register, runs_all
from sdas_kernels.flops import register_flops
from sdas_kernels.fused_sdas import autograd, flops, reference
from sdas_kernels.fused_sdas.weights import LayerWeights, Sizes, check, flat
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.checks import check_floating, check_graph, check_shapes
from sdas_kernels.ops.neighbor_tensor_product.cpp import MAX_DEGREE
from sdas_kernels.transforms import transformed

__all__ = ["Evaluator", "LayerWeights", "flat", "network", "runs_fused"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_PARTS = ("network", "edge_geometry", "neighbor_attention")
register(Backend("network", "reference", f"{__name__}.reference"))
register(Backend("network", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available))
register_flops("sdas_kernels::network", flops.forward)
register_flops("sdas_kernels::network_backward", flops.backward)


def runs_fused(device: str, dtype: torch.dtype, lmax: int) -> bool:
    """Whether one kernel runs the whole network on such tensors.

    It does unless another backend is asked for any of its parts, or a transform is at work, which it cannot follow.
    """
    return lmax <= MAX_DEGREE and not transformed() and runs_all("cpp", _PARTS, device, dtype)


@in_operand_dtype
def network(
    vectors: torch.Tensor,
    kinds: torch.Tensor,
    embedding: torch.Tensor,
    layers: Sequence[LayerWeights],
    graph: NeighborGraph | EdgeIndex,
    cutoff: float,
    even_only: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies of atoms and the gradient of their sum by the vectors.

    Args:
        vectors: `[E, 3]` Å, of the edges; a zero vector has a zero gradient.
        kinds: `[N]` int64, row of the embedding for each atom.
        embedding: `[species, C]`.
        layers: weights of each; the values of the first are scalars.
        graph: edges sorted by receiver.
        cutoff: Å.
        even_only: only paths with l1 + l2 + l3 even.

    Returns:
        energy `[N]` and gradient `[E, 3]` per Å, in the unit of the readout. Both can be differentiated once, by
        vectors and weights: that of the gradient is a second derivative of the energy.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, dtype or device.
        IndexError: a kind is no row of the embedding.
    """
    edges = graph.edges if isinstance(graph, NeighborGraph) else graph
    check_floating("network", vectors=vectors)
    check_graph("network", edges, vectors)
    axes = {"N": edges.num_nodes, "E": edges.num_edges, "3": 3}
    check_shapes("network", axes, vectors=(vectors, ("E", "3")), kinds=(kinds, ("N",)))
    if kinds.dtype != torch.int64 or kinds.device != vectors.device:
        raise TypeError(f"network: kinds must be int64 on {vectors.device}, got {kinds.dtype} on {kinds.device}")
    if not layers:
        raise ValueError("network: wants at least one layer, got none")
    kinds, weights = kinds.contiguous(), flat(embedding, layers)
    sizes = Sizes.of(weights, even_only)
    check("network", weights, sizes, vectors)
    if not runs_fused(vectors.device.type, vectors.dtype, sizes.lmax):
        return reference.network(vectors, kinds, weights, edges, float(cutoff), sizes)
    return autograd.network(vectors, kinds, weights, edges.tensors(), float(cutoff), even_only)


class Evaluator:
    """Energies of systems, forces and derivatives by strain, not differentiable and unseen by PyTorch.

    Args:
        cutoff, even_only: as of `network`.
    """

    def __init__(self, cutoff: float, even_only: bool = True) -> None:
        self._model = float(cutoff), even_only
        self._weights: Any = None  # those of the call before, as a backend looked at them

    def __reduce__(self) -> tuple[Any, ...]:
        return Evaluator, self._model  # what it keeps belongs to tensors that a copy does not have

    def __call__(
        self,
        graph: NeighborGraph,
        weights: Sequence[torch.Tensor],
        kind_of_number: torch.Tensor,
        energy_shift: torch.Tensor,
        energy_scale: torch.Tensor,
        stress: bool = False,
        inner_cutoffs: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None:
        """Evaluate a batch of systems in one call of the kernel.

        Args:
            graph: of whole systems, in the dtype and on the device of the weights.
            weights: `flat` ones.
            kind_of_number: `[119]` int64, row of the embedding for each atomic number, -1 if there is none.
            energy_shift, energy_scale: `[species]` and `[]` float64; a system's energy is Σ (scale · atom's + shift).
            stress: whether derivatives by strain are wanted.
            inner_cutoffs: `[species, species]` int64 fm: closer atoms are not for this kernel.

        Returns:
            energies `[B]` float64, forces `[N, 3]`, derivatives by strain `[B, 3, 3]`, not symmetrized, or None. Or
            None where there is no kernel, where a species is unknown, where atoms are within their inner cutoff, or
            where something watches PyTorch's operators, as a counter of FLOPs does.
        """
        positions = graph.positions
        tensors = (positions, graph.cells, graph.cell_shifts, graph.system, graph.numbers, *graph.edges.tensors())
        plain = all(type(t) in _PLAIN and t.is_contiguous() for t in tensors)
        known = self._weights
        sizes = Sizes.of(weights, self._model[1]) if known is None else known.sizes
        if not plain or torch._C._len_torch_dispatch_stack():
            return None
        if not runs_fused(positions.device.type, positions.dtype, sizes.lmax):
            return None
        run = kernels("network", positions)
        constants = [kind_of_number, energy_shift, energy_scale]
        constants += [] if inner_cutoffs is None else [inner_cutoffs]
        if known is None or not known.hold([*weights, *constants]):
            known = self._weights = run.ModelWeights(weights, constants, *self._model)
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None
        found = run.evaluate(known, graph, stress)
        return found
