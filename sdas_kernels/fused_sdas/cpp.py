"""The network on the CPU by the kernels of `csrc/fused_sdas/network.cpp`.

They are given memory for what they make: `state`, which the derivative needs again, starts with the weights as the
kernels take them; `scratch` is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.fused_sdas.weights import EPSILON, EXPONENT, Sizes, check, shapes
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.ops.neighbor_tensor_product.cpp import coupling_tables
from sdas_kernels.ops.spherical_harmonics.scale import factors

_INDEX = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")


def forward(
    vectors: Tensor,
    kinds: Tensor,
    weights: Sequence[Tensor],
    index: Sequence[Tensor],
    cutoff: float,
    even_only: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy `[N]`, gradient `[E, 3]`, and the state or, unless it is to be kept, nothing."""
    plan = _plan(Sizes.of(weights, even_only), cutoff, vectors.dtype)
    vectors, weights = vectors.contiguous(), [w.contiguous() for w in weights]
    sizes = len(kinds), len(vectors)
    if keep:
        state = memory.empty((plan.room.of_state(*sizes),), vectors)
    else:
        state = memory.scratch(sum(plan.network.numbers(*sizes, False)[:2]) * vectors.element_size())
    energy, gradient = vectors.new_empty(len(kinds)), memory.empty_like(vectors)
    members = plan.members(len(kinds), len(vectors), kinds.data_ptr(), weights, index, state.data_ptr())
    members["vectors"] = vectors.data_ptr()
    members["energy"], members["by_vectors"] = energy.data_ptr(), gradient.data_ptr()
    plan.network.pack(members["weights"], members["packed"])
    plan.network.first_order(members, keep, torch.get_num_threads())
    if not keep:
        memory.end_scratch()
    return energy, gradient, state if keep else vectors.new_empty(0)


def backward(
    by_energy: Tensor | None,
    by_gradient: Tensor | None,
    state: Tensor,
    vectors: Tensor,
    kinds: Tensor,
    weights: Sequence[Tensor],
    index: Sequence[Tensor],
    cutoff: float,
    even_only: bool,
    for_vectors: bool,
    for_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of <by_energy, energy> + <by_gradient, gradient>, by vectors `[E, 3]` and by all weights, flat.

    One that is not wanted has no rows.
    """
    plan = _plan(Sizes.of(weights, even_only), cutoff, vectors.dtype)
    vectors, weights = vectors.contiguous(), [w.contiguous() for w in weights]
    by_energy = vectors.new_zeros(len(kinds)) if by_energy is None else by_energy.contiguous()
    by_gradient = torch.zeros_like(vectors) if by_gradient is None else by_gradient.contiguous()
    by_vectors = memory.empty((len(vectors) if for_vectors else 0, 3), vectors)
    by_weights = vectors.new_empty(plan.weights if for_weights else 0)
    scratch = memory.scratch(plan.network.numbers(len(kinds), len(vectors), True)[2] * vectors.element_size())
    members = plan.members(len(kinds), len(vectors), kinds.data_ptr(), weights, index, state.data_ptr())
    members |= {"vectors": vectors.data_ptr(), "scratch": scratch.data_ptr(), "energy_cotangent": by_energy.data_ptr()}
    members["vectors_cotangent"] = by_gradient.data_ptr()
    if for_vectors:
        members["by_vectors"] = by_vectors.data_ptr()
    if for_weights:
        members["by_weights"] = by_weights.data_ptr()
    plan.network.second_order(members, torch.get_num_threads())
    memory.end_scratch()
    return by_vectors, by_weights


class ModelWeights:
    """The weights of a model for `evaluate`, looked at once, and then again only if one lies elsewhere.

    constants: kind_of_number `[119]` int64, the row of the embedding for an atomic number, -1 if there is none;
    energy_shift `[species]` and energy_scale `[]`, float64; inner_cutoffs `[species, species]` int64 fm, or nothing.
    """

    def __init__(self, weights: Sequence[Tensor], constants: Sequence[Tensor], cutoff: float, even_only: bool) -> None:
        self.sizes = Sizes.of(weights, even_only)
        check("network", weights, self.sizes, weights[0])
        _check_constants(constants, self.sizes.species, weights[0].device)
        self.plan = _plan(self.sizes, cutoff, weights[0].dtype)
        # detached ones keep the memory that was looked at, whatever a caller's tensor is made to hold later
        self._looked_at = [w.detach().resolve_neg().contiguous() for w in (*weights, *constants)]
        addresses = [w.data_ptr() for w in self._looked_at]
        self.weights, self.constants = addresses[: len(weights)], addresses[len(weights) :]
        self._addresses = addresses

    def frozen(self) -> Any:
        """The kernel with these weights packed, for as long as nobody writes to them and this object lives."""
        kind = getattr(native.extension(), f"Potential_{str(self._looked_at[0].dtype).removeprefix('torch.')}")
        return kind(self.plan.network, self.weights, self.constants)

    def hold(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these weights and constants lie where those lay; their numbers may have changed."""
        return self._addresses == [*map(Tensor.data_ptr, tensors)] and all(map(Tensor.is_contiguous, tensors))


def _check_constants(constants: Sequence[Tensor], species: int, device: torch.device) -> None:
    wanted = {
        "kind_of_number": (torch.int64, (119,)),
        "energy_shift": (torch.float64, (species,)),
        "energy_scale": (torch.float64, ()),
        "inner_cutoffs": (torch.int64, (species, species)),
    }
    if len(constants) == 3:
        del wanted["inner_cutoffs"]
    for (name, (dtype, shape)), given in zip(wanted.items(), constants, strict=True):
        if given.dtype != dtype or given.shape != shape or given.device != device:
            raise ValueError(
                f"network: {name} must be {dtype} {list(shape)} on {device}, "
                f"got {given.dtype} {list(given.shape)} on {given.device}"
            )


def evaluate(weights: ModelWeights, graph: NeighborGraph, stress: bool) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Energies of systems `[B]`, forces `[N, 3]` and, for a stress, derivatives by strain `[B, 3, 3]`.

    What `forward` does and what is around it, in one call that PyTorch does not see: for a molecule half of the time
    would go into a dozen small operations. None if an element is unknown, or atoms are within their inner cutoff.
    """
    edges, positions, network = graph.edges, graph.positions, weights.plan.network
    atoms, pairs, systems = positions.shape[0], edges.receivers.shape[0], graph.cells.shape[0]
    room = memory.scratch(network.evaluation_numbers(atoms, pairs) * positions.element_size())
    energies, forces = positions.new_empty(systems, dtype=torch.float64), torch.empty_like(positions)
    by_strain = positions.new_empty(systems, 3, 3) if stress else None
    arrays = [
        positions.data_ptr(),
        graph.numbers.data_ptr(),
        graph.cells.data_ptr(),
        graph.cell_shifts.data_ptr() if graph.periodic else 0,
        graph.system.data_ptr(),
        edges.receivers.data_ptr(),
        edges.senders.data_ptr(),
        edges.row_ptr.data_ptr(),
        edges.sender_order.data_ptr(),
        edges.sender_ptr.data_ptr(),
        *weights.constants[:3],
        energies.data_ptr(),
        forces.data_ptr(),
        0 if by_strain is None else by_strain.data_ptr(),
        *weights.constants[3:],
    ]
    threads = torch.get_num_threads()
    known = network.evaluate(weights.weights, arrays, atoms, pairs, systems, room.data_ptr(), threads)
    memory.end_scratch()
    return (energies, forces, by_strain) if known else None


def state_numbers(vectors: Tensor, kinds: Tensor, weights: Sequence[Tensor], cutoff: float, even_only: bool) -> Any:
    """How many numbers the state to be kept has; the sizes may be symbols."""
    return _room(Sizes.of(weights, even_only), vectors.dtype).of_state(kinds.shape[0], vectors.shape[0])


class _Room(NamedTuple):
    """How many numbers packed weights and a state that is kept take: a linear function, for a compiler to know."""

    packed: int
    node: int
    edge: int
    lost: int

    def of_state(self, nodes: int, edges: int) -> int:
        """Both together."""
        return self.packed + self.node * nodes + self.edge * edges + self.lost


@cache
def _room(sizes: Sizes, dtype: torch.dtype) -> _Room:
    parts = {"first": _kind(sizes, 0), "other": _kind(sizes, 1), "square": _square(sizes)}
    network = _native(sizes, 1.0, dtype, {"scale": 0} | parts)
    # Arrays begin at multiples of 16 numbers, so for sizes that are such multiples nothing is lost between them,
    # for others less than what all take at the least.
    nodes, edges, least = network.numbers(16, 0, True), network.numbers(0, 16, True), network.numbers(1, 1, True)
    return _Room(nodes[0], nodes[1] // 16, edges[1] // 16, least[1])


def _native(sizes: Sizes, cutoff: float, dtype: torch.dtype, rest: dict[str, Any]) -> Any:
    constants = sizes._asdict() | {"cutoff": cutoff, "exponent": EXPONENT, "epsilon": EPSILON}
    return getattr(native.extension(), f"Network_{str(dtype).removeprefix('torch.')}")(constants | rest)


def _kind(sizes: Sizes, layer: int) -> dict[str, Any]:
    """Sizes of a layer, without its coupling."""
    paths = sizes.paths(layer)
    return {"m1": 1 if layer == 0 else (sizes.lmax + 1) ** 2, "rows": paths.rows, "paths": paths.counts, "entries": 0}


def _square(sizes: Sizes) -> dict[str, Any]:
    """Sizes of the product at nodes, without its coupling."""
    return {"rows": sizes.square_paths.rows, "paths": sizes.square_paths.counts, "entries": 0}


class _Plan:
    """The constants of a network."""

    def __init__(self, sizes: Sizes, cutoff: float, dtype: torch.dtype) -> None:
        self._scale = torch.tensor(factors(sizes.lmax, "component"), dtype=torch.float64, device="cpu").to(dtype)
        parts = {"first": _kind(sizes, 0), "other": _kind(sizes, 1), "square": _square(sizes)}
        paths = sizes.paths(0), sizes.paths(1), sizes.square_paths
        self._tables = [coupling_tables(each, dtype) for each in paths]
        rest: dict[str, Any] = {"scale": self._scale.data_ptr()}
        for (name, part), table in zip(parts.items(), self._tables, strict=True):
            addresses = {entry: entries.data_ptr() for entry, entries in table.items()}
            rest[name] = part | addresses | {"entries": len(table["entry_row"])}
        self.network = _native(sizes, cutoff, dtype, rest)
        self.weights = sum(shape.numel() for shape in shapes(sizes)[1])
        self.room = _room(sizes, dtype)

    def members(
        self, nodes: int, edges: int, kinds: int, weights: Sequence[Tensor], index: Sequence[Tensor], packed: int
    ) -> dict[str, Any]:
        """The arrays of a call; the state lies behind the packed weights."""
        members: dict[str, Any] = {name: tensor.data_ptr() for name, tensor in zip(_INDEX, index, strict=True)}
        members["nodes"], members["edges"], members["kinds"] = nodes, edges, kinds
        members["weights"] = [w.data_ptr() for w in weights]
        members["packed"], members["state"] = packed, packed + self.room.packed * weights[0].element_size()
        return members


@lru_cache(maxsize=64)
def _plan(sizes: Sizes, cutoff: float, dtype: torch.dtype) -> _Plan:
    return _Plan(sizes, cutoff, dtype)
