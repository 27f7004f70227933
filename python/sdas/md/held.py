"""Constraints of many systems at once, as projections of velocities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixCom, FixedLine, FixedPlane

from sdas.errors import SdasError
from sdas.md.systems import Systems


class Held:
    """What atoms may not do.

    directions: `[N, 3, 3]` projections onto the directions in which each atom may move, or None where all are free.
    centers: `[B]`, whether the center of mass of a system stays where it is, or None where none does.
    """

    def __init__(self, directions: torch.Tensor | None, centers: torch.Tensor | None) -> None:
        self.directions, self.centers = directions, centers

    @classmethod
    def of(cls, atoms: Sequence[Atoms], device: torch.device | str = "cpu") -> Held:
        """Of structures whose constraints are as `constraints_of` gives them; raises SdasError for fixed bonds."""
        directions = torch.cat([torch.from_numpy(_directions(each)) for each in atoms])
        centers = torch.tensor([any(isinstance(c, FixCom) for c in each.constraints) for each in atoms])
        free = bool((directions == torch.eye(3)).all())
        return cls(None if free else directions.to(device), centers.to(device) if bool(centers.any()) else None)

    @property
    def anything(self) -> bool:
        """Whether an atom is held."""
        return self.directions is not None or self.centers is not None

    def project(self, velocities: torch.Tensor, systems: Systems) -> None:
        """Take out of `velocities` `[N, 3]`, in place, what is not allowed."""
        if self.directions is not None:
            velocities.copy_((self.directions @ velocities[:, :, None]).squeeze(2))
        if self.centers is not None:
            masses = systems.masses[:, None]
            drift = systems.sum(masses * velocities) / systems.sum(masses)
            velocities -= systems.of_atoms(drift * self.centers[:, None])

    def rows(self, chosen: Sequence[int], systems: Systems) -> Held:
        """Of some of the systems."""
        atoms, index = systems.atoms_of(chosen), torch.tensor(chosen, dtype=torch.int64, device=systems.device)
        return Held(
            None if self.directions is None else self.directions[atoms],
            None if self.centers is None else self.centers[index],
        )


def _directions(atoms: Atoms) -> np.ndarray:
    """Projections `[n, 3, 3]`; no atom is held by two constraints."""
    made = np.tile(np.eye(3), (len(atoms), 1, 1))
    for constraint in atoms.constraints:
        if isinstance(constraint, FixBondLengths):
            raise SdasError("replicas cannot keep FixBondLengths: run each by sdas.md.simulate, or leave it out")
        if isinstance(constraint, FixAtoms):
            made[constraint.index] = 0
        elif isinstance(constraint, FixCartesian):
            made[constraint.index] = np.diag(~np.asarray(constraint.mask, dtype=bool)).astype(float)
        elif isinstance(constraint, FixedLine):
            made[constraint.index] = np.outer(constraint.dir, constraint.dir)
        elif isinstance(constraint, FixedPlane):
            made[constraint.index] = np.eye(3) - np.outer(constraint.dir, constraint.dir)
    return made
