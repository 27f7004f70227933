"""Frames for the pool by the ensemble's own dynamics, drawn to where its members disagree.

E(x) = Ē(x) − κ σ(x),   σ² = 1/M Σ (E_m − Ē)²,   F = F̄ − κ/(M σ) Σ (E_m − Ē) F_m
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from sdas.active.shapes import overlapping
from sdas.config.active import ExplorationConfig
from sdas.data import Frame
from sdas.md import Replicas
from sdas.md.forces import ModelForces, Results
from sdas.md.systems import Systems

SMALLEST = 1e-9
"""eV. Deviations below are taken as this, so that the bias of members that agree is zero."""


class BiasedEnsemble:
    """The mean of models, less ``bias`` times the deviation of their energies: :class:`sdas.md.forces.Forces`.

    Results tell the ``deviation`` σ [B] in eV too.
    """

    invariant = True

    def __init__(self, models: Sequence[torch.nn.Module | str | Path], bias: float) -> None:
        self.members, self.bias = [ModelForces(model) for model in models], bias
        self.device = self.members[0].device

    def check(self, systems: Systems) -> None:
        """Raises SdasError for an element, or a charge or spin, that the models do not know."""
        self.members[0].check(systems)

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """See :class:`sdas.md.forces.Forces`."""
        results = [member(systems, stress) for member in self.members]
        energies = torch.stack([each["energy"] for each in results])
        apart = energies - energies.mean(0)
        deviation = apart.square().mean(0).sqrt()
        weights = (1 - self.bias * apart / deviation.clamp_min(SMALLEST)) / len(results)  # of each member, [M, B]
        found = {
            "energy": energies.mean(0) - self.bias * deviation,
            "forces": _weighted(weights[:, systems.system], [each["forces"] for each in results]),
            "closest": results[0]["closest"],
            "deviation": deviation,
        }
        if stress:
            found["stress"] = _weighted(weights, [each["stress"] for each in results])
        return found


def explore(
    models: Sequence[torch.nn.Module | Path],
    starts: Sequence[Frame],
    settings: ExplorationConfig,
    seed: int,
    closest: float,
) -> tuple[list[Frame], int]:
    """Frames of dynamics by models, and how many of the replicas ended early.

    Args:
        starts: structures to begin with; each replica draws one.
        closest: frames with atoms closer than this part of a bond are left out.
    """
    drawn = np.random.default_rng(seed).integers(len(starts), size=settings.replicas)
    atoms = [_atoms(starts[index]) for index in drawn.tolist()]
    replicas = Replicas(
        BiasedEnsemble(models, settings.bias), atoms, "langevin", settings.temperature_k,
        timestep_fs=settings.timestep_fs, seed=seed,
    )  # fmt: skip
    found: list[Frame] = []
    rounds = -(-settings.frames // settings.replicas)
    for number in range(rounds):
        replicas.run(max(1, round(settings.interval_fs / settings.timestep_fs)))
        for replica in replicas.running:
            start = starts[int(drawn[replica])]
            frame = _frame(replicas.atoms(replica), start, f"dynamics {seed}: replica {replica}, frame {number}")
            if len(found) < settings.frames and not overlapping(frame, closest):
                found.append(frame)
    return found, settings.replicas - len(replicas)


def _weighted(weights: torch.Tensor, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum over members of `[n, ..]` values, weighted row by row: weights are `[M, n]`."""
    return torch.einsum("mn,mn...->n...", weights, torch.stack(list(values)))


def _atoms(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info=dict(frame.state))


def _frame(atoms: Atoms, start: Frame, source: str) -> Frame:
    return Frame(
        start.numbers, np.array(atoms.positions), start.cell, start.pbc, None, None, None, source,
        config_type=start.config_type, charge=start.charge, spin=start.spin,
    )  # fmt: skip
