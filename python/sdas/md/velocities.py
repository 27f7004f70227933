"""The start of dynamics: what moves, and how fast."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation

from sdas.data.electronic_states import state_of_atoms
from sdas.errors import SdasError
from sdas.md.constraints import conserves_momentum, constraints_of, is_molecule


def moving_copy(atoms: Atoms) -> Atoms:
    """A structure with its masses, constraints, charge and spin, without momenta.

    Raises SdasError for masses and constraints that cannot be used.
    """
    masses = atoms.get_masses()
    strange = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(strange):
        raise SdasError(f"atom {strange[0]} weighs {masses[strange[0]]} u; masses must be positive")
    constraints = constraints_of(atoms)
    moving = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, masses=masses)
    moving.info = state_of_atoms(atoms)
    moving.set_constraint(constraints)
    return moving


def draw_velocities(atoms: Atoms, temperature_k: float, generator: np.random.Generator) -> None:
    """Maxwell–Boltzmann velocities, in the directions that constraints leave."""
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature_k)
    atoms.set_momenta(spread[:, None] * generator.standard_normal((len(atoms), 3)))


def stop_drift(atoms: Atoms) -> None:
    """Take the total momentum out and, of molecules, the angular momentum, where no constraint holds atoms in space."""
    if conserves_momentum(atoms):
        Stationary(atoms, preserve_temperature=False)
        if is_molecule(atoms):
            ZeroRotation(atoms, preserve_temperature=False)
