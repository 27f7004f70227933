"""What moves in a run of replicas: systems with velocities, at a temperature, and the random numbers of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ase import units

from sdas.md.held import Held
from sdas.md.systems import Systems


class Noise:
    """Random numbers, a generator for each system, so that what one draws does not depend on the others.

    Args:
        seeds: of each system.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]

    def of_atoms(self, systems: Systems) -> torch.Tensor:
        """Normal numbers `[N, 3]`."""
        numbers = np.empty((systems.starts[-1], 3))
        for generator, first, last in zip(self.generators, systems.starts, systems.starts[1:], strict=False):
            generator.standard_normal(out=numbers[first:last])
        return torch.from_numpy(numbers).to(systems.device)

    def normal(self, systems: Systems) -> torch.Tensor:
        """A normal number for each system `[B]`."""
        numbers = [generator.standard_normal() for generator in self.generators]
        return torch.tensor(numbers, dtype=torch.float64, device=systems.device)

    def chi_square(self, freedom: torch.Tensor) -> torch.Tensor:
        """For each system the sum of so many squares of normal numbers `[B]`."""
        pairs = zip(self.generators, freedom.tolist(), strict=True)
        numbers = [generator.chisquare(count) if count > 0 else 0.0 for generator, count in pairs]
        return torch.tensor(numbers, dtype=torch.float64, device=freedom.device)

    def states(self) -> list[dict[str, Any]]:
        """Of the generators, as JSON can hold them."""
        return [dict(generator.bit_generator.state) for generator in self.generators]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on as the generators that had these states."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.bit_generator.state = state


@dataclass
class Motion:
    """B systems in motion.

    velocities [N, 3] Å per ASE's unit of time. temperature [B] K: the one that is asked for. freedom [B]: degrees of
    freedom that move. own: further variables of thermostat and barostat, each `[B, ...]`. heat [B] eV: what they have
    given to the system so far.
    """

    systems: Systems
    velocities: torch.Tensor
    temperature: torch.Tensor
    freedom: torch.Tensor
    noise: Noise
    held: Held
    heat: torch.Tensor
    own: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def thermal_energy(self) -> torch.Tensor:
        """k_B T `[B]` eV of the temperature that is asked for."""
        return units.kB * self.temperature

    def kinetic(self) -> torch.Tensor:
        """`[B]` eV."""
        return self.systems.kinetic(self.velocities)

    def kinetic_temperature(self) -> torch.Tensor:
        """`[B]` K, over the degrees of freedom that move."""
        return 2 * self.kinetic() / (units.kB * self.freedom)

    def scale_velocities(self, factors: torch.Tensor) -> None:
        """By a factor for each system `[B]`."""
        self.velocities *= self.systems.of_atoms(factors)[:, None]

    def rows(self, chosen: Sequence[int]) -> Motion:
        """Some of the systems."""
        index = torch.tensor(chosen, dtype=torch.int64, device=self.systems.device)
        noise = Noise([])
        noise.generators = [self.noise.generators[row] for row in chosen]
        return Motion(
            systems=self.systems.rows(chosen),
            velocities=self.velocities[self.systems.atoms_of(chosen)],
            temperature=self.temperature[index],
            freedom=self.freedom[index],
            noise=noise,
            held=self.held.rows(chosen, self.systems),
            heat=self.heat[index],
            own={name: value[index] for name, value in self.own.items()},
        )
