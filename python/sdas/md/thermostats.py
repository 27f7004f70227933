"""Thermostats: what happens to velocities in the middle of a step.

    v += dt/2 · F/m    r += dt/2 · v    [thermostat changes v]    r += dt/2 · v    v += dt/2 · F/m

This is velocity Verlet where the thermostat does nothing. With Langevin's it is BAOAB (Leimkuhler and Matthews 2013).
The others stand in the same place: the "middle" scheme of Zhang, Liu, Yan, Tuckerman and Liu (2019), in which averages
over positions are more exact than with a thermostat at the ends. The kinetic temperature at the end of a step is too
low by the factor 1 - (ω dt)²/4 for a vibration of angular frequency ω; that belongs to the scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from ase import units

from sdas.errors import SdasError
from sdas.md.motion import Motion


class Thermostat(Protocol):
    """conserves_momentum: whether total momentum stays as it is, so that it is no degree of freedom."""

    conserves_momentum: bool

    def begin(self, motion: Motion) -> None:
        """Put variables of its own into `motion.own`, if it has any."""
        ...

    def apply(self, motion: Motion, dt: float) -> None:
        """Change velocities, over a time `dt` in ASE's unit."""
        ...


@dataclass(frozen=True)
class NVE:
    """No thermostat: constant energy."""

    conserves_momentum = True

    def begin(self, motion: Motion) -> None:
        """Nothing."""

    def apply(self, motion: Motion, dt: float) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Langevin:
    """v ← c v + √(1 − c²) √(k_B T / m) ξ,  c = exp(−γ dt): friction γ (1/ps) and noise, on every atom by itself."""

    friction_per_ps: float = 2.0
    conserves_momentum = False

    def __post_init__(self) -> None:
        _check_positive(self, "friction_per_ps")

    def begin(self, motion: Motion) -> None:
        """Nothing."""

    def apply(self, motion: Motion, dt: float) -> None:
        """The exact solution over `dt`."""
        systems = motion.systems
        kept = math.exp(-self.friction_per_ps * dt / (1000 * units.fs))
        spread = (systems.of_atoms(motion.thermal_energy) / systems.masses * (1 - kept**2)).sqrt()
        motion.velocities *= kept
        motion.velocities += spread[:, None] * motion.noise.of_atoms(systems)
        motion.held.project(motion.velocities, systems)


@dataclass(frozen=True)
class Bussi:
    """Velocities of a system are scaled together, such that its kinetic energy follows the canonical distribution.

    Bussi, Donadio and Parrinello (2007), with relaxation time `time_fs`. Momentum stays where it is zero.
    """

    time_fs: float = 100.0
    conserves_momentum = True

    def __post_init__(self) -> None:
        _check_positive(self, "time_fs")

    def begin(self, motion: Motion) -> None:
        """Nothing."""

    def apply(self, motion: Motion, dt: float) -> None:
        """The exact solution over `dt`: equation A7 and its sign, A8."""
        kept = math.exp(-dt / (self.time_fs * units.fs))
        one, others = motion.noise.normal(motion.systems), motion.noise.chi_square(motion.freedom - 1)
        share = motion.thermal_energy / (2 * motion.kinetic().clamp(min=1e-300))
        mean = (1 - kept) * share
        square = kept + mean * (one.square() + others) + 2 * one * (kept * mean).sqrt()
        sign = torch.where(one + (kept / mean.clamp(min=1e-300)).sqrt() < 0, -1.0, 1.0)
        motion.scale_velocities(sign * square.clamp(min=0).sqrt())


@dataclass(frozen=True)
class NoseHoover:
    """A chain of Nosé–Hoover thermostats for each system, with relaxation time `time_fs`: deterministic.

    Martyna, Klein and Tuckerman (1992); masses and factorization of Martyna, Tuckerman, Tobias and Klein (1996), with
    the three-fold weights of Suzuki and Yoshida. A small or stiff system is sampled better by a stochastic thermostat.
    """

    time_fs: float = 50.0
    length: int = 3
    conserves_momentum = True

    def __post_init__(self) -> None:
        _check_positive(self, "time_fs")
        _check_positive(self, "length")

    def begin(self, motion: Motion) -> None:
        """Velocities of the chain `[B, length]`, in 1 per ASE's unit of time: at rest.

        Raises SdasError for a temperature of zero, at which its masses vanish.
        """
        if not bool((motion.temperature > 0).all()):
            raise SdasError("NoseHoover: the temperature must be above 0 K; use langevin or bussi to cool to rest")
        motion.own["chain_velocities"] = motion.heat.new_zeros(len(motion.systems), self.length)

    def apply(self, motion: Motion, dt: float) -> None:
        """The chain and the factor by which it scales velocities, over `dt`."""
        chain, thermal = motion.own["chain_velocities"], motion.thermal_energy
        mass = thermal[:, None] * (self.time_fs * units.fs) ** 2 * torch.ones_like(chain)
        mass[:, 0] *= motion.freedom
        twice_kinetic = 2 * motion.kinetic()
        factor = torch.ones_like(thermal)

        def push(link: int, span: float) -> None:
            drive = twice_kinetic - motion.freedom * thermal
            if link > 0:
                drive = mass[:, link - 1] * chain[:, link - 1].square() - thermal
            drag = torch.exp(-span / 2 * chain[:, link + 1]) if link + 1 < self.length else torch.ones_like(thermal)
            chain[:, link] = (chain[:, link] * drag + span * drive / mass[:, link]) * drag

        for weight in _SUZUKI_YOSHIDA:
            span = weight * dt
            for link in reversed(range(self.length)):
                push(link, span / 2)
            shrink = torch.exp(-span * chain[:, 0])
            factor, twice_kinetic = factor * shrink, twice_kinetic * shrink.square()
            for link in range(self.length):
                push(link, span / 2)
        motion.scale_velocities(factor)


_W = 1 / (2 - 2 ** (1 / 3))
_SUZUKI_YOSHIDA = (_W, 1 - 2 * _W, _W)
THERMOSTATS: dict[str, Callable[..., Any]] = {
    "nve": NVE,
    "langevin": Langevin,
    "bussi": Bussi,
    "nose-hoover": NoseHoover,
}


def thermostat_of(given: str | Thermostat, **options: float) -> Thermostat:
    """A thermostat, or the one of that name with its options; raises SdasError for an unknown name."""
    if not isinstance(given, str):
        return given
    if given not in THERMOSTATS:
        raise SdasError(f"thermostat must be one of {', '.join(THERMOSTATS)}, got {given!r}")
    made: Thermostat = THERMOSTATS[given](**options)
    return made


def _check_positive(thermostat: object, name: str) -> None:
    value = getattr(thermostat, name)
    if not 0 < value < float("inf"):
        raise SdasError(f"{type(thermostat).__name__}: {name} must be positive, got {value}")
