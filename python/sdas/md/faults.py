"""When a replica has left the region where a potential means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from sdas.errors import SdasError
from sdas.md.forces import Results
from sdas.md.motion import Motion
from sdas.md.systems import Systems

BOND_SLACK = 1.15
"""Two atoms within this many times the sum of their covalent radii are bound at the start."""


@dataclass(frozen=True)
class Verdict:
    """Why a replica ended: after so many steps, of `time_fs`."""

    step: int
    time_fs: float
    reason: str


@dataclass(frozen=True)
class Limits:
    """What ends a replica, besides numbers that are not finite.

    closest_ang: two atoms closer than this, if the forces tell how close atoms are. hottest_k: a kinetic temperature
    above this. stretch_ang: a bond of the start that is so much longer or shorter than it was there; 0.5 Å is the usual
    measure of stability (Fu and others 2023). None asks for no such thing, as bonds may break rightly.
    """

    closest_ang: float = 0.4
    hottest_k: float = 20_000.0
    stretch_ang: float | None = None

    def __post_init__(self) -> None:
        for name in ("closest_ang", "hottest_k"):
            if not getattr(self, name) >= 0:
                raise SdasError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.stretch_ang is not None and not self.stretch_ang > 0:
            raise SdasError(f"stretch_ang must be positive, as every bond vibrates, got {self.stretch_ang}")


class Bonds:
    """The bonds of each system at the start, with their lengths there.

    Args:
        atoms: the structures, one for each replica.
    """

    def __init__(self, atoms: Sequence[Atoms]) -> None:
        self._of_replica = [_bonds(each) for each in atoms]
        self._joined: tuple[list[int], list[np.ndarray]] | None = None  # of all that run: their numbers, and arrays

    def stretched(self, motion: Motion, limit: float) -> dict[int, tuple[float, int, int]]:
        """For each system with a bond that has changed by more than `limit` Å: the most changed one and its atoms."""
        systems = motion.systems
        rows, atoms, pairs, lengths, shifts = self._join(systems)
        positions, cells = systems.positions.cpu().numpy(), systems.cells.cpu().numpy()
        vectors = positions[atoms[:, 1]] - positions[atoms[:, 0]] + (shifts[:, None, :] @ cells[rows]).squeeze(1)
        changes = np.linalg.norm(vectors, axis=1) - lengths
        found: dict[int, tuple[float, int, int]] = {}
        for bond in np.flatnonzero(np.abs(changes) > limit):
            row, change = int(rows[bond]), float(changes[bond])
            if row not in found or abs(change) > abs(found[row][0]):
                found[row] = (change, *pairs[bond].tolist())
        return found

    def _join(self, systems: Systems) -> list[np.ndarray]:
        """Row, atoms `[n, 2]` among all and in their system, length and shift of the bonds of those that run."""
        running = systems.replica.tolist()
        if self._joined is None or self._joined[0] != running:
            bonds = [self._of_replica[replica] for replica in running]
            pairs, lengths, shifts = (np.concatenate(each) for each in zip(*bonds, strict=True))
            rows = np.repeat(np.arange(len(bonds)), [len(each[0]) for each in bonds])
            self._joined = running, [rows, pairs + np.array(systems.starts)[rows, None], pairs, lengths, shifts]
        return self._joined[1]


def _bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j, d, shifts = neighbor_list("ijdS", atoms, natural_cutoffs(atoms, mult=BOND_SLACK))
    once = i < j  # an atom is not bound to an image of itself that moves with it
    return np.stack([i, j], 1)[once], d[once], shifts[once]


def faults(motion: Motion, results: Results, limits: Limits, bonds: Bonds | None) -> dict[int, str]:
    """What is wrong with systems, by row; those of which nothing is said are well."""
    systems, found = motion.systems, {}
    temperature = motion.kinetic_temperature()
    bad = ~(temperature <= limits.hottest_k)
    finite = torch.isfinite(results["energy"])
    if not torch.isfinite(results["forces"].sum()):  # of all at once, which takes less time
        finite &= torch.isfinite(systems.sum(results["forces"].sum(1)))
    bad |= ~finite
    closest = results.get("closest")
    if closest is not None:
        bad |= closest < limits.closest_ang
    if bool(bad.any()):
        for row in torch.nonzero(bad).flatten().tolist():
            if not finite[row]:
                found[row] = "the energy or a force is not finite"
            elif closest is not None and closest[row] < limits.closest_ang:
                found[row] = f"two atoms are {float(closest[row]):.3f} Å apart"
            else:
                found[row] = f"the temperature is {float(temperature[row]):.0f} K"
    if bonds is not None and limits.stretch_ang is not None:
        for row, (change, i, j) in bonds.stretched(motion, limits.stretch_ang).items():
            found.setdefault(row, f"the bond of atoms {i} and {j} is {change:+.2f} Å from its first length")
    return found
