"""Barostats: how a cell follows its pressure. Cells keep their shape.

    dε = −(β/τ)(P − P_int) dt + √(2 k_B T β / (V τ)) dW          ε = ln V
    P_int = 2 K / (3 V) − tr σ / 3

That is stochastic cell rescaling (Bernetti and Bussi 2020), with which volumes follow the isothermal-isobaric
distribution; Berendsen's barostat (1984) is its first term, which has the right average and too small fluctuations. In
a step, positions and cells are scaled by e^{dε/3} and velocities by e^{−dε/3} behind the thermostat, with the pressure
of the step's start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from ase import units

from sdas.errors import SdasError
from sdas.md.motion import Motion

BAR = units.bar
"""eV/Å³."""
WATER_PER_BAR = 4.57e-5


class Barostat(Protocol):
    """What changes volumes."""

    def growth(self, motion: Motion, pressure: torch.Tensor, dt: float) -> torch.Tensor:
        """dε `[B]` over a time `dt` in ASE's unit, at the internal pressure `[B]` eV/Å³."""
        ...


@dataclass(frozen=True)
class Berendsen:
    """The pressure relaxes to `pressure_bar` in `time_fs`, if the compressibility is that of the system (1/bar)."""

    pressure_bar: float = 1.0
    time_fs: float = 1000.0
    compressibility_per_bar: float = WATER_PER_BAR

    def __post_init__(self) -> None:
        for name in ("time_fs", "compressibility_per_bar"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SdasError(f"{type(self).__name__}: {name} must be positive, got {getattr(self, name)}")
        if not abs(self.pressure_bar) < float("inf"):
            raise SdasError(f"{type(self).__name__}: pressure_bar must be a number, got {self.pressure_bar}")

    @property
    def _rate(self) -> float:
        """β/τ, in units of ASE."""
        return self.compressibility_per_bar / BAR / (self.time_fs * units.fs)

    def growth(self, motion: Motion, pressure: torch.Tensor, dt: float) -> torch.Tensor:
        """See :class:`Barostat`."""
        return self._rate * dt * (pressure - self.pressure_bar * BAR)


@dataclass(frozen=True)
class StochasticCellRescaling(Berendsen):
    """The same with noise, so that volumes fluctuate as they do at constant pressure."""

    def growth(self, motion: Motion, pressure: torch.Tensor, dt: float) -> torch.Tensor:
        """See :class:`Barostat`."""
        spread = (2 * motion.thermal_energy * self._rate * dt / motion.systems.volumes()).sqrt()
        return super().growth(motion, pressure, dt) + spread * motion.noise.normal(motion.systems)


BAROSTATS: dict[str, Callable[..., Any]] = {"cell-rescaling": StochasticCellRescaling, "berendsen": Berendsen}


def barostat_of(name: str, **options: float) -> Barostat:
    """The barostat of that name; raises SdasError for an unknown one."""
    if name not in BAROSTATS:
        raise SdasError(f"barostat must be one of {', '.join(BAROSTATS)}, got {name!r}")
    made: Barostat = BAROSTATS[name](**options)
    return made


def internal_pressure(motion: Motion, stress: torch.Tensor) -> torch.Tensor:
    """2 K / (3 V) − tr σ / 3 `[B]` eV/Å³."""
    trace = stress.diagonal(dim1=1, dim2=2).sum(1)
    return 2 * motion.kinetic() / (3 * motion.systems.volumes()) - trace / 3


def grow(motion: Motion, growth: torch.Tensor) -> None:
    """Change volumes by the factors e^growth `[B]`, about the origin."""
    stretch = torch.exp(growth / 3)
    systems = motion.systems
    systems.positions *= systems.of_atoms(stretch)[:, None]
    systems.cells *= stretch[:, None, None]
    motion.scale_velocities(1 / stretch)
