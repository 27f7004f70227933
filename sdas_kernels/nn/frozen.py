"""An SDAS potential as it is now, for many steps of the same systems.

For a molecule, looking at a model and making a graph takes longer than the arithmetic. So weights are copied and looked
at once, pairs of atoms once in many steps, and a step is one call of a kernel, of positions alone.
"""

from __future__ import annotations

from typing import Any

import torch

from sdas_kernels import memory, native, profiling
from sdas_kernels.arguments import dense_tensor
from sdas_kernels.dispatch import kernels
from sdas_kernels.fused_sdas import flat, runs_fused
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.neighbors import MIN_DISTANCE
from sdas_kernels.nn.derivatives import Found, symmetric, volumes_of
from sdas_kernels.nn.fused import layer_weights
from sdas_kernels.nn.inner_cutoff import inner_cutoffs
from sdas_kernels.nn.sdas import SDAS

# How an evaluation went, as csrc/bindings/fused_sdas.cpp says. Another number is the row of a system with an overlap.
_DONE, _PAIRS_MAY_LACK, _UNKNOWN_ELEMENT, _WITHIN_INNER_CUTOFF = -1, -2, -3, -4


class OverlapError(ValueError):
    """Two atoms of a system are at one place.

    row: of the system. distance: theirs, Å.
    """

    def __init__(self, row: int, distance: float) -> None:
        super().__init__(f"two atoms overlap: they are {distance:.2g} Å apart")
        self.row, self.distance = row, distance


class InnerCutoffError(ValueError):
    """Atoms are within their inner cutoff: only the model itself knows the energy, from their graph."""


class ListedPairs:
    """Pairs of atoms up to the sum of a cutoff and a skin, which hold for some steps.

    Args:
        graph: of all of them, float64 on the CPU, at the positions where they were found. It belongs to this object:
            nobody may write to it.
        cutoff, skin: Å.
    """

    def __init__(self, graph: NeighborGraph, cutoff: float, skin: float) -> None:
        if graph.dtype != torch.float64 or graph.device.type != "cpu":
            raise TypeError(f"ListedPairs: the graph must be torch.float64 on cpu, got {graph.dtype} on {graph.device}")
        self._made_of = graph, cutoff, skin  # the native object points into the graph's memory
        edges = graph.edges
        arrays = {
            "receivers": edges.receivers,
            "senders": edges.senders,
            "row_ptr": edges.row_ptr,
            "sender_order": edges.sender_order,
            "sender_ptr": edges.sender_ptr,
            "numbers": graph.numbers,
            "system": graph.system,
            "positions": graph.positions,
            "cells": graph.cells,
            **({"shifts": graph.cell_shifts} if graph.periodic else {}),
        }
        if not all(array.is_contiguous() for array in arrays.values()):
            raise ValueError("ListedPairs: the graph's tensors must be contiguous")
        self.atoms, self.systems = graph.num_atoms, graph.num_systems
        sizes = {"nodes": self.atoms, "edges": graph.num_edges, "systems": self.systems}
        addresses = {name: array.data_ptr() for name, array in arrays.items()}
        self.native = native.extension().Pairs(sizes | {"cutoff": cutoff, "skin": skin} | addresses)

    def __reduce__(self) -> tuple[Any, ...]:
        return ListedPairs, self._made_of

    def check(self, **given: torch.Tensor) -> None:
        """Arrays of a later step are as the graph's of these names; raises TypeError or ValueError."""
        for name, array in given.items():
            like: torch.Tensor = getattr(self._made_of[0], name)
            dense_tensor("FrozenPotential", name, array)
            if array.dtype != like.dtype or not array.is_cpu:
                raise TypeError(
                    f"FrozenPotential: {name} must be {like.dtype} on cpu, got {array.dtype} on {array.device}"
                )
            if array.shape != like.shape or not array.is_contiguous():
                raise ValueError(
                    f"FrozenPotential: {name} must be {list(like.shape)} and contiguous, as of the pairs, got "
                    f"{list(array.shape)} with strides {list(array.stride())}"
                )


class FrozenPotential:
    """A copy of an SDAS model; what is done to the model later does not change it. `FrozenPotential.of` makes one.

    potential(pairs, numbers, positions, cells)     # what the model gives for the graph of the pairs within its cutoff
    """

    def __init__(self, weights: list[torch.Tensor], constants: list[torch.Tensor], cutoff: float, parity: bool) -> None:
        run = kernels("network", weights[0])
        self._known = run.ModelWeights(weights, constants, cutoff, parity)
        self._native = self._known.frozen()
        self._of = weights[0].device.type, weights[0].dtype, self._known.sizes.lmax
        self._room: tuple[Any, int] = None, 0  # the pairs of the last call, and the numbers of scratch that they need
        self._made_of = weights, constants, cutoff, parity

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenPotential, self._made_of

    @classmethod
    def of(cls, model: torch.nn.Module) -> FrozenPotential | None:
        """None for a model that no kernel runs whole, or to whose energy other parts than the network add."""
        if not isinstance(model, SDAS) or model.training:
            return None
        layers = layer_weights(model)
        inner = inner_cutoffs(model.repulsion)
        if layers is None or model.electronic is not None or (model.repulsion is not None and inner is None):
            return None
        buffers: dict[str, Any] = model._buffers
        constants = [buffers[name] for name in ("_species_of_number", "energy_shift", "energy_scale")]
        constants += [] if inner is None else [inner]
        weights = [weight.detach().clone() for weight in flat(model.embedding.weight, layers)]
        return cls(weights, [constant.clone() for constant in constants], model.cutoff, model.config["parity"])

    def serves(self) -> bool:
        """Whether it may run now: not where another backend is asked for, or where something watches operators."""
        return not (profiling.on or torch._C._len_torch_dispatch_stack()) and runs_fused(*self._of)

    def __call__(
        self,
        pairs: ListedPairs,
        numbers: torch.Tensor,
        positions: torch.Tensor,
        cells: torch.Tensor,
        stress: bool = False,
        trust: bool = False,
    ) -> Found | None:
        """Energies and forces at other positions of the same atoms, in float64 whatever the dtype of the weights.

        No bit of those of a system depends on the others.

        Args:
            numbers: `[N]` int64.
            positions, cells: `[N, 3]` and `[B, 3, 3]` Å, contiguous float64 on the CPU.
            stress: whether it is wanted.
            trust: that the pairs hold every pair closer than the cutoff, which is looked at otherwise.

        Returns:
            "energy" `[B]` eV, "forces" `[N, 3]` eV/Å, with `stress` "stress" `[B, 3, 3]` eV/Å³, and "closest" `[B]` Å:
            the distance of the closest two atoms that are listed, infinity if there are none. None if a pair that is
            not listed may have come near.

        Raises:
            OverlapError: two atoms are at one place.
            InnerCutoffError: two atoms are within the inner cutoff of a model that has one.
            TypeError, ValueError: arrays that are not as above, an element that is unknown to the model, or a stress of
                a system without a cell.
        """
        pairs.check(numbers=numbers, positions=positions, cells=cells)
        if self._room[0] is not pairs:
            self._room = pairs, self._native.numbers(pairs.native)
        room, threads = self._room[1], torch.get_num_threads()
        across = self._native.threads_across(pairs.native, threads)
        energy, closest = cells.new_empty(pairs.systems), cells.new_empty(pairs.systems)
        forces = torch.empty_like(positions)
        by_strain = torch.empty_like(cells) if stress else None
        row = self._native.evaluate(
            pairs.native,
            numbers.data_ptr(),
            positions.data_ptr(),
            cells.data_ptr(),
            trust,
            MIN_DISTANCE,
            energy.data_ptr(),
            forces.data_ptr(),
            0 if by_strain is None else by_strain.data_ptr(),
            closest.data_ptr(),
            memory.scratch(room * across * self._of[1].itemsize).data_ptr(),
            room,
            threads,
        )
        memory.end_scratch()
        if row == _PAIRS_MAY_LACK:
            return None
        if row == _UNKNOWN_ELEMENT:
            raise ValueError(
                f"SDAS: some of the atomic numbers {sorted(set(numbers.tolist()))} are unknown to the model"
            )
        if row == _WITHIN_INNER_CUTOFF:
            raise InnerCutoffError("FrozenPotential: atoms are within their inner cutoff: call the model")
        if row != _DONE:
            raise OverlapError(row, float(closest[row]))
        found = {"energy": energy, "forces": forces, "closest": closest}
        if by_strain is not None:
            found["stress"] = symmetric(by_strain) / volumes_of(cells)[:, None, None]
        return found
