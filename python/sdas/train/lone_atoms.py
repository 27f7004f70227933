"""Atoms alone, whose energies are known: a model gives them exactly, whatever its weights are.

    E = Σ_i [ E₀(Z_i) + s f_i − s f(Z_i alone) ]

s f_i is the network's energy of an atom among its neighbors, E₀ that of an isolated atom. While a model trains, one
atom of each species stands alone beside the frames of a batch, and what the network gives it is taken off its like. A
model that is done has E₀ − s f(Z alone) as the energy of the species. So it is like any other, and costs no more.

With charge and spin, f(Z alone) is that of the state in which the isolated atom was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from sdas.config import Config
from sdas.train.graphs import Batch, Beside
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.segment import Segments, gather, segment_sum

Predicted = dict[str, torch.Tensor]
"""What a model gives: "energy" `[B]`, "forces" `[N, 3]`, "stress" `[B, 3, 3]`."""


class LoneAtoms:
    """energies: eV by atomic number. spins: multiplicities of those atoms that have one, of models that know of it."""

    def __init__(
        self, energies: Mapping[int, float], spins: Mapping[int, float], cutoff: float, dtype: torch.dtype
    ) -> None:
        self._energies = dict(energies)
        box = np.eye(3)  # for models want a volume wherever a stress is asked for
        self._graphs = {
            z: NeighborGraph.build(np.zeros((1, 3)), [z], cutoff, box, False, dtype, spin=spins.get(z))
            for z in energies
        }

    def beside(self, batch: Batch) -> Batch:
        """``batch``, on the CPU, with an atom of each of its species; without energies it stays as it is."""
        if not batch.counts.energies:
            return batch
        numbers, rows = torch.unique(batch.graph.numbers, return_inverse=True)
        alone = [self._graphs[z] for z in numbers.tolist()]
        energies = torch.tensor([self._energies[z] for z in numbers.tolist()], dtype=torch.float64)
        return replace(batch, graph=NeighborGraph.batch([batch.graph, *alone]), beside=Beside(energies, rows))

    def settle(self, model: Any) -> None:
        """Give every species of ``model`` the energy by which its atom alone has the true one."""
        numbers = model.species.tolist()
        graph = NeighborGraph.batch([self._graphs[z] for z in numbers]).to(model.energy_shift.device)
        true = torch.tensor([self._energies[z] for z in numbers], dtype=torch.float64)
        with torch.no_grad():
            model.energy_shift.zero_()
            model.energy_shift.copy_(true.to(graph.device) - model(graph)["energy"])


def lone_atoms_of(
    config: Config, reference: Mapping[str, Any] | None, dtype: torch.dtype, charge_spin: bool
) -> LoneAtoms | None:
    """Those of a run with that record of its energy reference; None where it is a fit, or no energy is in the loss."""
    in_the_loss = config.train.energy_weight or config.train.energy_weight_late
    if not (reference and reference.get("of_atoms_alone") and in_the_loss):
        return None
    energies, spins = (
        {atomic_numbers[symbol]: value for symbol, value in reference[name].items()} for name in ("shifts_ev", "spins")
    )
    return LoneAtoms(energies, spins if charge_spin else {}, config.model.cutoff, dtype)


def of_frames(predicted: Predicted, batch: Batch) -> Predicted:
    """What a model predicts of the frames of ``batch``, given what it does of its graph."""
    if batch.beside is None:
        return predicted
    frames, atoms = len(batch.energy), len(batch.forces)
    excess = predicted["energy"][frames:] - batch.beside.energies
    of_atoms = gather(excess, Segments(batch.beside.rows, ascending=False))
    taken_off = segment_sum(of_atoms, Segments(batch.graph.system[:atoms]), frames)
    counts = {"energy": frames, "forces": atoms, "stress": frames}
    found = {name: values[: counts[name]] for name, values in predicted.items()}
    return {**found, "energy": found["energy"] - taken_off}
