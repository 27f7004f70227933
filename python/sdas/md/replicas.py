"""Many replicas at once: one batch, one call of the model per step.

replicas = Replicas(model, [atoms] * 64, thermostat="langevin", temperature_k=300)
replicas.run(1000, observe=lambda now: print(now.step, now.temperature()))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from sdas.errors import SdasError
from sdas.md.barostats import Barostat, grow, internal_pressure
from sdas.md.constraints import degrees_of_freedom
from sdas.md.display import NS_PER_DAY, SHOW_EVERY, show_speed
from sdas.md.faults import Bonds, Limits, Verdict, faults
from sdas.md.forces import Forces, Results, as_forces
from sdas.md.held import Held
from sdas.md.motion import Motion, Noise
from sdas.md.state import Identity
from sdas.md.systems import Systems
from sdas.md.thermostats import NVE, Thermostat, thermostat_of
from sdas.md.velocities import draw_velocities, moving_copy, stop_drift
from sdas.md.verlet_list import NoNeighborsError


@dataclass(frozen=True)
class Ran:
    """steps: that were made. seconds: of wall time. ns_per_day: of all replicas together."""

    steps: int
    seconds: float
    ns_per_day: float


class Replicas:
    """Systems that move at once, each with its own random numbers, temperature and end.

    Positions and velocities are float64 whatever the dtype of the model. Positions are never wrapped into the cell.
    A replica that explodes ends with a verdict, and the others go on.

    Args:
        forces: an `sdas_kernels.nn.SDAS`, a run directory or model directory, or any :class:`sdas.md.forces.Forces`.
        atoms: a structure for each replica, equal or not. They are copied. Masses and constraints count; momenta do
            not, but are drawn. Fixed bonds are refused.
        thermostat: "nve", "langevin", "bussi" or "nose-hoover", or one of :mod:`sdas.md.thermostats`.
        temperature_k: of the first velocities and of the thermostat, for all or for each.
        barostat: one of :mod:`sdas.md.barostats`; needs cells that are periodic along all three axes.
        bias: further :class:`sdas.md.forces.Forces` that are added.
        timestep_fs: of the integrator.
        seed: of the first replica; those that follow have seed + 1, seed + 2, …; or a seed for each.
        limits: what ends a replica.
        options: dtype, device, skin and batch of :class:`sdas.md.forces.ModelForces`, if `forces` is a model.

    Raises:
        SdasError: an argument is not what is wanted, or a start makes no sense.
    """

    def __init__(
        self,
        forces: torch.nn.Module | str | Path | Forces,
        atoms: Sequence[Atoms],
        thermostat: str | Thermostat = "nve",
        temperature_k: float | Sequence[float] = 300.0,
        *,
        barostat: Barostat | None = None,
        bias: Forces | None = None,
        timestep_fs: float = 0.5,
        seed: int | Sequence[int] = 0,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        if isinstance(atoms, Atoms):
            raise SdasError("atoms must be a list with a structure for each replica, got one structure")
        if not 0 < timestep_fs < float("inf"):
            raise SdasError(f"timestep_fs must be positive, got {timestep_fs}")
        self.forces = as_forces(forces, **options)
        self.bias = None if bias is None else as_forces(bias)
        self.thermostat, self.barostat = thermostat_of(thermostat), barostat
        self.timestep_fs, self.limits = float(timestep_fs), limits or Limits()
        self.step = 0
        """How many steps were made."""
        self.verdicts: list[Verdict | None] = [None] * len(atoms)
        """Of each replica that has ended."""
        self.ended: dict[int, Atoms] = {}
        """The replicas that have ended, as they were then."""
        self.motion = self._start(atoms, temperature_k, seed)
        self.results: Results = {}
        """Of the present positions, by the rows of `motion.systems`: energy and forces, bias included, and others."""
        try:
            self.results = self._compute()
            wrong = self._faults()
        except NoNeighborsError as error:
            wrong = {error.row: str(error)}
        for row, reason in wrong.items():
            raise SdasError(f"replica {row} cannot start like this: {reason}")
        self.thermostat.begin(self.motion)

    def _start(self, atoms: Sequence[Atoms], temperature_k: Any, seed: Any) -> Motion:
        moving = [moving_copy(each) for each in atoms]
        self.start = [each.copy() for each in moving]
        systems = Systems.of(moving, getattr(self.forces, "device", "cpu"))
        check = getattr(self.forces, "check", None)
        if check is not None:
            check(systems)
        held = Held.of(moving, systems.device)
        if self.barostat is not None and (held.anything or not bool(systems.pbc.all())):
            raise SdasError("a barostat needs cells that are periodic along all three axes, and no constraints")
        self._bonds = None if self.limits.stretch_ang is None else Bonds(moving)
        invariant = self.forces.invariant and (self.bias is None or self.bias.invariant)
        seeds = _for_each("seed", seed, len(atoms), int, lambda first: [first + row for row in range(len(atoms))])
        temperatures = _for_each("temperature_k", temperature_k, len(atoms), float, lambda t: [t] * len(atoms))
        self.seeds, self.temperatures = seeds, temperatures
        noise = Noise(seeds)
        for each, kelvin, generator in zip(moving, temperatures, noise.generators, strict=True):
            draw_velocities(each, kelvin, generator)
            if invariant:
                stop_drift(each)
        kept = invariant and self.thermostat.conserves_momentum

        def numbers(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float64, device=systems.device)

        return Motion(
            systems=systems,
            velocities=torch.as_tensor(np.concatenate([each.get_velocities() for each in moving])).to(systems.device),
            temperature=numbers(temperatures),
            freedom=numbers([degrees_of_freedom(each, kept) for each in moving]),
            noise=noise,
            held=held,
            heat=numbers([0.0] * len(atoms)),
        )

    def __len__(self) -> int:
        """How many are running."""
        return len(self.motion.systems)

    @property
    def time_fs(self) -> float:
        """That has passed."""
        return self.step * self.timestep_fs

    @property
    def running(self) -> list[int]:
        """Numbers of the replicas that run, by row."""
        numbers: list[int] = self.motion.systems.replica.tolist()
        return numbers

    def kinetic(self) -> torch.Tensor:
        """Kinetic energies `[B]` eV of those that run."""
        return self.motion.kinetic()

    def temperature(self) -> torch.Tensor:
        """Kinetic temperatures `[B]` K, over the motions that constraints leave free and the dynamics excite."""
        return self.motion.kinetic_temperature()

    def conserved(self) -> torch.Tensor:
        """Energy `[B]` eV less what thermostats have given: constant but for the error of the time step.

        With a barostat it is no such measure.
        """
        return self.results["energy"] + self.kinetic() - self.motion.heat

    def pressure(self) -> torch.Tensor:
        """Internal pressure `[B]` eV/Å³; raises SdasError without a barostat, as no stress is calculated then."""
        if "stress" not in self.results:
            raise SdasError("pressures are known where there is a barostat")
        return internal_pressure(self.motion, self.results["stress"])

    def atoms(self, replica: int) -> Atoms:
        """A replica as a structure of ASE with momenta, energy and forces; one that has ended as it was then."""
        if replica in self.ended:
            return self.ended[replica]
        systems = self.motion.systems
        row = self.running.index(replica)
        span = systems.span(row)
        masses = systems.masses[span].cpu().numpy()
        velocities = self.motion.velocities[span].cpu().numpy()
        made = Atoms(
            systems.numbers[span].cpu().numpy(),
            systems.positions[span].cpu().numpy(),
            cell=systems.cells[row].cpu().numpy(),
            pbc=systems.pbc[row].cpu().numpy(),
            masses=masses,
            momenta=velocities * masses[:, None],
            info=dict(systems.states[row]),
        )
        if self.results:
            energy, forces = float(self.results["energy"][row]), self.results["forces"][span].cpu().numpy()
            made.calc = SinglePointCalculator(made, energy=energy, forces=forces)
        return made

    def identity(self, more: Mapping[str, Any]) -> list[Identity]:
        """For each replica what a run that goes on must share with this one, `more` included."""
        dtype = str(getattr(self.forces, "dtype", torch.float64)).removeprefix("torch.")
        shared = {
            "timestep_fs": self.timestep_fs,
            "thermostat": repr(self.thermostat),
            "barostat": repr(self.barostat),
            "limits": repr(self.limits),
            "bias": None if self.bias is None else _fingerprint(self.bias),
            **more,
        }
        own = zip(self.start, self.temperatures, self.seeds, strict=True)
        return [
            Identity.of(atoms, _fingerprint(self.forces), dtype, {**shared, "temperature_k": kelvin, "seed": seed})
            for atoms, kelvin, seed in own
        ]

    def run(
        self,
        steps: int,
        observe: Callable[[Replicas], None] | None = None,
        every: int = 1,
        progress: bool = False,
    ) -> Ran:
        """Make `steps` steps, or as many as there are replicas that run.

        Args:
            observe: is given the replicas at the beginning of this call and after every `every` steps. Tensors are the
                run's own: copy what is to be kept. What it raises ends the call.
            progress: show a bar with ns/day.
        """
        if steps < 0 or every < 1:
            raise SdasError(f"steps must not be negative and every at least 1, got {steps} and {every}")
        start, first, simulated = time.perf_counter(), self.step, 0.0
        if observe is not None:
            observe(self)
        with tqdm(total=steps, desc="md", unit="step", disable=None if progress else True) as bar:
            while self.step < first + steps and len(self):
                self.advance()
                simulated += self.timestep_fs * len(self)
                if observe is not None and (self.step - first) % every == 0:
                    observe(self)
                bar.update()
                if progress and self.step % SHOW_EVERY == 0:
                    show_speed(bar, self.timestep_fs * len(self))
        seconds = time.perf_counter() - start
        return Ran(self.step - first, seconds, NS_PER_DAY * simulated / seconds)

    def advance(self) -> None:
        """One step; replicas that explode in it end."""
        motion, systems, dt = self.motion, self.motion.systems, self.timestep_fs * units.fs
        growth = None if self.barostat is None else self.barostat.growth(motion, self.pressure(), dt)
        self._kick(dt / 2)
        systems.positions += dt / 2 * motion.velocities
        if not isinstance(self.thermostat, NVE):
            before = motion.kinetic()
            self.thermostat.apply(motion, dt)
            motion.heat += motion.kinetic() - before
        if growth is not None:
            grow(motion, growth)
        systems.positions += dt / 2 * motion.velocities
        self.step += 1
        self.evaluate()
        if len(self):
            self._kick(dt / 2)
            self._end(self._faults())

    def _kick(self, dt: float) -> None:
        motion = self.motion
        motion.velocities.addcdiv_(self.results["forces"], motion.systems.masses[:, None], value=dt)
        motion.held.project(motion.velocities, motion.systems)

    def evaluate(self) -> None:
        """Results of the present positions; a system that has none ends.

        To be called after positions or cells in `motion.systems` were changed from outside, as by a Monte Carlo move.
        """
        self.results = {}
        while len(self) and not self.results:
            systems = self.motion.systems
            if not torch.isfinite(systems.positions.sum()):  # of all at once, which takes less time
                lost = ~torch.isfinite(systems.sum(systems.positions.sum(1)))
                self._end(dict.fromkeys(torch.nonzero(lost).flatten().tolist(), "a position is not finite"))
            try:
                self.results = self._compute() if len(self) else {}
            except NoNeighborsError as error:
                self._end({error.row: str(error)})

    def _compute(self) -> Results:
        """Forces and bias together."""
        systems, stress = self.motion.systems, self.barostat is not None
        results = dict(self.forces(systems, stress))
        if self.bias is not None:
            bias = self.bias(systems, stress)
            for name in ("energy", "forces", *(["stress"] if stress else [])):
                results[name] = results[name] + bias[name]
            results["bias_energy"] = bias["energy"]
        return results

    def _faults(self) -> dict[int, str]:
        return faults(self.motion, self.results, self.limits, self._bonds)

    def _end(self, reasons: dict[int, str]) -> None:
        """Systems of these rows run no more."""
        if not reasons:
            return
        for row, reason in reasons.items():
            replica = self.running[row]
            self.ended[replica] = self.atoms(replica)
            self.verdicts[replica] = Verdict(self.step, self.time_fs, reason)
        kept = [row for row in range(len(self)) if row not in reasons]
        systems = self.motion.systems
        index = {True: systems.atoms_of(kept), False: torch.tensor(kept, dtype=torch.int64, device=systems.device)}
        self.results = {name: value[index[name == "forces"]] for name, value in self.results.items()}
        self.motion = self.motion.rows(kept)


def _fingerprint(forces: Forces) -> str:
    """Of forces that have one; of others their class is all that can be told."""
    return str(getattr(forces, "fingerprint", type(forces).__qualname__))


def _for_each(name: str, given: Any, count: int, kind: type, spread: Callable[[Any], Any]) -> list[Any]:
    """A number for each replica."""
    values = list(spread(given)) if np.ndim(given) == 0 else list(given)
    if len(values) != count or any(not 0 <= value < np.inf or kind(value) != value for value in values):
        number = "whole number" if kind is int else "number"
        raise SdasError(f"{name} must be a {number} of 0 or more, or one for each of {count} replicas, got {given}")
    return [kind(value) for value in values]
