"""A step of dynamics through ASE, the same for every calculator.

Weights are random, so a molecule would not hold together. Masses and temperature are a thousand times what they should
be: atoms have the velocities of 300 K, which forces hardly change, and neighbors change about as fast as they do in a
simulation. Every `STEPS` steps the flight begins anew, before molecules have come apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

TIMESTEP_FS, STEPS = 0.5, 40
HEAVY = 1000.0
TEMPERATURE_K = HEAVY * 300.0


def structures(arrays: dict[str, np.ndarray]) -> list[Atoms]:
    """The systems of a file of `peers.systems.save`."""
    made = []
    for row, cell in enumerate(arrays["cells"]):
        of = arrays["system"] == row
        box = cell if arrays["pbc"][row].any() else None
        made.append(Atoms(arrays["numbers"][of], arrays["positions"][of], cell=box, pbc=arrays["pbc"][row]))
        made[-1].set_masses(HEAVY * made[-1].get_masses())
    return made


class Flight:
    """One system with a calculator, by ASE's velocity Verlet."""

    def __init__(self, arrays: dict[str, np.ndarray], calculator: Any) -> None:
        (self.atoms,) = structures(arrays)
        MaxwellBoltzmannDistribution(self.atoms, temperature_K=TEMPERATURE_K, rng=np.random.default_rng(0))
        self.atoms.calc = calculator
        self.start = self.atoms.positions.copy(), self.atoms.get_momenta()
        self.dynamics = VelocityVerlet(self.atoms, timestep=TIMESTEP_FS * units.fs)
        self.steps = 0

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """Energy and forces after a step."""
        if self.steps == STEPS:
            self.atoms.positions, self.steps = self.start[0], 0
            self.atoms.set_momenta(self.start[1])
            self.atoms.get_forces()
        self.steps += 1
        self.dynamics.step()
        results = self.atoms.calc.results
        return np.array([results["energy"]]), results["forces"]
