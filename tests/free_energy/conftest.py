"""A particle in a well whose free energies are known."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms, units

from sdas.free_energy import Axis
from sdas.md.forces import EnergyFunction
from sdas.md.systems import Systems

KELVIN = 300.0
KT = units.kB * KELVIN
BARRIER = 3.0


class Position:
    """A coordinate of the first atom, Å."""

    def __init__(self, name: str) -> None:
        self.name, self.unit, self.component = name, "Å", "xyz".index(name)

    def __call__(self, systems: Systems) -> torch.Tensor:
        return systems.positions[torch.tensor(systems.starts[:-1]), self.component]


def double_well(x: torch.Tensor) -> torch.Tensor:
    """k_B T: minima at ±1, the barrier between them at 0."""
    return BARRIER * (x**2 - 1) ** 2


@pytest.fixture
def particle() -> Atoms:
    return Atoms("H", [[-1.0, 0.0, 0.0]])


@pytest.fixture
def well() -> EnergyFunction:
    """A double well along x, harmonic with 2.5 k_B T/Å² about x / 2 along y and about 0 along z."""

    def energy(systems: Systems) -> torch.Tensor:
        x, y, z = systems.positions.unbind(1)
        return systems.sum(KT * (double_well(x) + 2.5 * (y - x / 2) ** 2 + 2.5 * z**2))

    return EnergyFunction(energy, invariant=False)


@pytest.fixture
def x_axis() -> Axis:
    return Axis(Position("x"), -1.4, 1.4, 20)


@pytest.fixture
def y_axis() -> Axis:
    return Axis(Position("y"), -1.2, 1.2, 12)
