"""An SDAS potential as it is now, for many steps of the same systems.

For a molecule, looking at a model and making a graph takes longer than the arithmetic. So weights are copied and looked
at once, pairs of atoms once in many steps, and a step is one call of a kernel, of positions alone.
"""

from __future__ import annotations

from typing import Any

import torch

from sdas_kernels import memory, native, profiling
from sdas_kernels.arguments import dense_tensor, has_values, length, positive_length
from sdas_kernels.dispatch import kernels
from sdas_kernels.electronic_states import unusual
from sdas_kernels.fused_sdas import flat, runs_fused
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.neighbors import MIN_DISTANCE
from sdas_kernels.nn.derivatives import Found, symmetric, volumes_of
from sdas_kernels.nn.fused import is_hooked, layer_weights
from sdas_kernels.nn.inner_cutoff import inner_cutoffs
from sdas_kernels.nn.sdas import SDAS
from sdas_kernels.transforms import transformed

CUTOFF_ERROR = 1e-6
"""Å: cutoffs that differ by less are one."""
# How an evaluation went, as csrc/bindings/fused_sdas.cpp says. Another number is the row of a system with an overlap.
_DONE, _PAIRS_MAY_LACK, _UNKNOWN_ELEMENT, _WITHIN_INNER_CUTOFF = -1, -2, -3, -4


class OverlapError(ValueError):
    """Two atoms of a system are at one place.

    row: of the system. distance: theirs, Å.
    """

    def __init__(self, row: int, distance: float) -> None:
        super().__init__(f"two atoms overlap: they are {distance:.2g} Å apart")
        self.row, self.distance = row, distance

    def __reduce__(self) -> tuple[Any, ...]:
        return OverlapError, (self.row, self.distance)  # as it comes from another process


class InnerCutoffError(ValueError):
    """Atoms are within their inner cutoff: only the model itself knows the energy, from their graph."""


class ListedPairs:
    """Pairs of atoms up to the sum of a cutoff and a skin, which hold for some steps.

    Args:
        graph: of all of them, float64 on the CPU, at the positions where they were found. It belongs to this object:
            nobody may write to it.
        cutoff: Å, the model's.
        skin: Å, 0 or more.

    Raises:
        TypeError, ValueError: an argument is of another kind, or the graph's own cutoff is less than the sum.
    """

    def __init__(self, graph: NeighborGraph, cutoff: float, skin: float) -> None:
        if not isinstance(graph, NeighborGraph):
            raise TypeError(f"ListedPairs: graph must be a NeighborGraph, got {type(graph).__name__}")
        self.cutoff = positive_length("ListedPairs", "cutoff", cutoff)
        skin = length("ListedPairs", "skin", skin)
        if graph.dtype != torch.float64 or graph.device.type != "cpu":
            raise TypeError(f"ListedPairs: graph must be torch.float64 on cpu, got {graph.dtype} on {graph.device}")
        if graph.cutoff < self.cutoff + skin - CUTOFF_ERROR:
            raise ValueError(
                f"ListedPairs: graph must have all pairs up to cutoff + skin = {self.cutoff + skin:g} Å, "
                f"got one with those up to {graph.cutoff:g} Å"
            )
        graph.check_unwritten()
        self._made_of = graph, self.cutoff, skin  # the native object points into the graph's memory
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
            raise ValueError("ListedPairs: graph must have contiguous tensors")
        self.atoms, self.systems = graph.num_atoms, graph.num_systems
        sizes = {"nodes": self.atoms, "edges": graph.num_edges, "systems": self.systems}
        addresses = {name: array.data_ptr() for name, array in arrays.items()}
        self.native = native.extension().Pairs(sizes | {"cutoff": self.cutoff, "skin": skin} | addresses)

    def __reduce__(self) -> tuple[Any, ...]:
        return ListedPairs, self._made_of

    def checked(self, **given: torch.Tensor) -> list[torch.Tensor]:
        """Arrays of a later step that are as the graph's of these names; raises TypeError or ValueError."""
        for name, array in given.items():
            like: torch.Tensor = getattr(self._made_of[0], name)
            dense_tensor("FrozenPotential", name, array)
            if array.dtype != like.dtype or not array.is_cpu or not has_values(array):
                kind = f"{array.dtype} on {array.device}" + ("" if has_values(array) else " without numbers")
                raise TypeError(f"FrozenPotential: {name} must be {like.dtype} on cpu, got {kind}")
            if array.shape != like.shape or not array.is_contiguous():
                raise ValueError(
                    f"FrozenPotential: {name} must be {list(like.shape)} and contiguous, as of the pairs, got "
                    f"{list(array.shape)} with strides {list(array.stride())}"
                )
        return [array.resolve_neg() for array in given.values()]

    def check_model(self, cutoff: float) -> None:
        """They are for a model of this cutoff that knows no charges and spins; raises ValueError."""
        if abs(self.cutoff - cutoff) > CUTOFF_ERROR:
            raise ValueError(
                f"FrozenPotential: pairs are for a cutoff of {self.cutoff:g} Å, the model has {cutoff:g} Å"
            )
        state = unusual(self._made_of[0])
        if state is not None:
            raise ValueError(f"FrozenPotential: pairs are of a graph with {state}, which the model does not know of")


class FrozenPotential:
    """A copy of an SDAS model; what is done to the model later does not change it. `FrozenPotential.of` makes one.

    potential(pairs, numbers, positions, cells)     # what the model gives for the graph of the pairs within its cutoff
    """

    def __init__(self, weights: list[torch.Tensor], constants: list[torch.Tensor], cutoff: float, parity: bool) -> None:
        run = kernels("network", weights[0])
        self._known = run.ModelWeights(weights, constants, cutoff, parity)
        self._native = self._known.frozen()
        self._of = weights[0].device.type, weights[0].dtype, self._known.sizes.lmax
        # the pairs of the last call and the numbers of scratch that they need, together: threads may share this object
        self._last: tuple[ListedPairs | None, int] = None, 0
        self._made_of = weights, constants, cutoff, parity

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenPotential, self._made_of

    @classmethod
    def of(cls, model: torch.nn.Module) -> FrozenPotential | None:
        """None for a model that no kernel runs whole, or to whose energy other parts than the network add."""
        if type(model) is not SDAS or is_hooked(model) or model.training:  # a subclass may add to the energy
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

    def _room(self, pairs: ListedPairs) -> int:
        """Numbers of scratch that a thread needs for pairs that fit the model."""
        if not isinstance(pairs, ListedPairs):
            raise TypeError(f"FrozenPotential: pairs must be ListedPairs, got {type(pairs).__name__}")
        pairs.check_model(self._made_of[2])
        room: int = self._native.numbers(pairs.native)
        return room

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

        No bit of those of a system depends on the others. They cannot be differentiated, as those of the model can.

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
            TypeError, ValueError: arrays that are not as above, pairs for another cutoff or of charged systems, an
                element that is unknown to the model, or a stress of a system without a cell.
            RuntimeError: under `torch.func` or forward derivatives.
        """
        last, room = self._last
        if last is None or last is not pairs:
            room = self._room(pairs)
            self._last = pairs, room
        if transformed():
            raise RuntimeError("FrozenPotential: has no derivatives: call the model under torch.func or forward_ad")
        numbers, positions, cells = pairs.checked(numbers=numbers, positions=positions, cells=cells)
        threads = torch.get_num_threads()
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
