"""Run dynamics, write them down as they go, resume them, and stop them when they explode."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms, units
from ase.io.extxyz import write_extxyz
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from tqdm import tqdm

from sdas.errors import SdasError
from sdas.files import write_text
from sdas.md.calculator import SDASCalculator
from sdas.md.drift import Drift, energy_drift
from sdas.md.settings import MDSettings
from sdas.md.state import STATE, SavedState, fingerprint
from sdas.run.lock import locked

LOG, TRAJECTORY, SUMMARY = "log.csv", "trajectory.extxyz", "md.json"
COLUMNS = ("step", "time_fs", "potential_ev", "kinetic_ev", "total_ev", "temperature_k")


class UnstableRunError(SdasError):
    """The simulation left the region where the model means anything; what was written until then is kept."""


@dataclass(frozen=True)
class MDResult:
    """folder: of log.csv, trajectory.extxyz and md.json. n_atoms, steps: of the whole run.

    drift: None for a thermostated or very short run. mean_temperature_k: over the part of the run that the drift uses.
    """

    folder: Path
    n_atoms: int
    steps: int
    mean_temperature_k: float
    drift: Drift | None


def simulate(
    atoms: Atoms,
    calculator: SDASCalculator,
    settings: MDSettings,
    folder: str | os.PathLike[str],
    *,
    fresh: bool = False,
    progress: bool = False,
) -> MDResult:
    """Run `settings.steps` steps from `atoms`, or what is left of them if `folder` holds an interrupted run.

    A resumed run goes on from the last saved state with its velocities and random numbers, so it writes what the
    uninterrupted run would have written. More steps than before lengthen a finished run.

    Args:
        atoms: the start; not changed. Momenta that it carries are replaced by ones drawn at the temperature.
        folder: gets log.csv, trajectory.extxyz, state.npz and md.json.
        fresh: begin anew, removing the run that is there.

    Raises:
        UnstableRunError: an energy or force is not finite, two atoms came too close, or the system is too hot.
        SdasError: `folder` holds a run of another system or with other settings.
    """
    target = Path(folder)
    with locked(target):
        return _simulate(atoms, calculator, settings, target, fresh, progress)


def _simulate(
    atoms: Atoms, calculator: SDASCalculator, settings: MDSettings, target: Path, fresh: bool, progress: bool
) -> MDResult:
    if fresh:
        for name in (STATE, LOG, TRAJECTORY, SUMMARY):
            (target / name).unlink(missing_ok=True)
    system = fingerprint(atoms)
    state = SavedState.load(target)
    if state is not None:
        _check_same_run(state, settings, system, target)
    generator = np.random.Generator(np.random.PCG64(settings.seed))
    moving = atoms.copy()
    moving.set_constraint()
    moving.calc = calculator
    if state is None:
        _draw_velocities(moving, settings.temperature_k, generator)
    else:
        moving.positions[:] = state.positions
        moving.set_momenta(state.momenta)
        generator.bit_generator.state = state.generator
    first = 0 if state is None else state.step
    with _outputs(target, state) as (log, trajectory):
        run = _Run(moving, calculator, settings, system, generator, log, trajectory, target)
        if state is None:
            run.sample(0)
            run.save(0)
        dynamics = _integrator(moving, settings, generator)
        bar = tqdm(total=settings.steps, initial=first, desc="md", unit="step", disable=not progress)
        with bar:
            for step in range(first + 1, settings.steps + 1):
                run.advance(dynamics, step)
                bar.update()
        if settings.steps > first:
            run.save(settings.steps)
    return _summarize(target, len(atoms), settings, max(first, settings.steps))


class _Run:
    """Open files and counters of a run in progress."""

    def __init__(
        self,
        atoms: Atoms,
        calculator: SDASCalculator,
        settings: MDSettings,
        system: str,
        generator: np.random.Generator,
        log: IO[str],
        trajectory: IO[str],
        folder: Path,
    ) -> None:
        self.atoms, self.calculator, self.settings, self.system = atoms, calculator, settings, system
        self.generator, self.log, self.trajectory, self.folder = generator, log, trajectory, folder
        self.freedom = _degrees_of_freedom(atoms, settings.ensemble)

    def advance(self, dynamics: VelocityVerlet | Langevin, step: int) -> None:
        """One step, and what is due after it."""
        try:
            dynamics.step()
        except ValueError as error:  # the neighbor list refuses non-finite or coinciding positions
            raise self._unstable(step, str(error)) from error
        self._check(step)
        if step % self.settings.sample_every == 0:
            self.sample(step)
        if step % self.settings.save_every == 0:
            self.save(step)

    def sample(self, step: int) -> None:
        """A row of the log and a frame of the trajectory."""
        potential, kinetic = self.atoms.get_potential_energy(), self.atoms.get_kinetic_energy()
        time_fs = step * self.settings.timestep_fs
        values = (potential, kinetic, potential + kinetic, self.temperature())
        self.log.write(f"{step},{time_fs:.6g}," + ",".join(f"{value:.10g}" for value in values) + "\n")
        self.atoms.info = {"step": step, "time_fs": time_fs}
        write_extxyz(self.trajectory, [self.atoms], columns=["symbols", "positions", "momenta"], write_results=True)

    def temperature(self) -> float:
        """Kinetic temperature in K, over the motions that the ensemble excites."""
        return 2 * self.atoms.get_kinetic_energy() / (self.freedom * units.kB)

    def save(self, step: int) -> None:
        """Make everything up to this step survive a crash."""
        for file in (self.log, self.trajectory):
            file.flush()
            os.fsync(file.fileno())
        SavedState(
            positions=self.atoms.positions.copy(),
            momenta=self.atoms.get_momenta(),
            step=step,
            generator=dict(self.generator.bit_generator.state),
            physics=self.settings.physics(),
            system=self.system,
            log_bytes=self.log.tell(),
            trajectory_bytes=self.trajectory.tell(),
        ).save(self.folder)

    def _check(self, step: int) -> None:
        results = self.calculator.results
        if not (np.isfinite(results["energy"]) and np.isfinite(results["forces"]).all()):
            raise self._unstable(step, "the energy or a force is not finite")
        distance, i, j = self.calculator.closest_pair()
        if distance < self.settings.closest_ang:
            raise self._unstable(step, f"atoms {i} and {j} are {distance:.3f} Å apart")

        temperature = self.temperature()
        if temperature > self.settings.hottest_k:
            raise self._unstable(step, f"the temperature is {temperature:.0f} K")

    def _unstable(self, step: int, reason: str) -> UnstableRunError:
        time_fs = step * self.settings.timestep_fs
        return UnstableRunError(
            f"the run exploded at step {step} ({time_fs:g} fs): {reason}. Frames until then are in "
            f"{self.folder / TRAJECTORY}. Try a shorter time step or a lower temperature, or train the model on "
            f"structures like the last frames; then run again with --fresh"
        )


def read_log(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Columns of log.csv by name, each `[T]`."""
    table = np.loadtxt(Path(folder) / LOG, delimiter=",", skiprows=1, ndmin=2)
    return dict(zip(COLUMNS, table.T, strict=True))


def _degrees_of_freedom(atoms: Atoms, ensemble: str) -> int:
    """3n, less what a run at constant energy conserves: the momentum and, for molecules, the angular momentum."""
    frozen = 0 if ensemble == "nvt" else 3 if atoms.pbc.any() else 6 if len(atoms) > 2 else 3
    return max(3 * len(atoms) - frozen, 1)


def _draw_velocities(atoms: Atoms, temperature_k: float, generator: np.random.Generator) -> None:
    """Maxwell–Boltzmann velocities without drift and, for molecules, without rotation."""
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature_k)
    atoms.set_momenta(spread[:, None] * generator.standard_normal((len(atoms), 3)))
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any() and len(atoms) > 2:
        ZeroRotation(atoms, preserve_temperature=False)


def _integrator(atoms: Atoms, settings: MDSettings, generator: np.random.Generator) -> VelocityVerlet | Langevin:
    timestep = settings.timestep_fs * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep=timestep)
    friction = settings.friction_per_ps / (1000 * units.fs)
    return Langevin(
        atoms, timestep=timestep, temperature_K=settings.temperature_k, friction=friction, fixcm=False, rng=generator
    )


@contextmanager
def _outputs(folder: Path, state: SavedState | None) -> Iterator[tuple[IO[str], IO[str]]]:
    """Log and trajectory, new with a header or cut back to the saved state, open for appending."""
    lengths = (0, 0) if state is None else (state.log_bytes, state.trajectory_bytes)
    for name, length in zip((LOG, TRAJECTORY), lengths, strict=True):
        path = folder / name
        present = path.stat().st_size if path.exists() else 0
        if present < length:
            raise SdasError(f"{path}: shorter than when the run was saved; start again with --fresh")
        with open(path, "ab") as file:
            file.truncate(length)
    with open(folder / LOG, "a") as log, open(folder / TRAJECTORY, "a") as trajectory:
        if state is None:
            log.write(",".join(COLUMNS) + "\n")
        yield log, trajectory


def _check_same_run(state: SavedState, settings: MDSettings, system: str, folder: Path) -> None:
    advice = "choose another folder, or start again with --fresh"
    if state.system != system:
        raise SdasError(f"{folder} holds a run that began from another structure: {advice}")
    for name, value in settings.physics().items():
        if state.physics.get(name) != value:
            raise SdasError(f"{folder} holds a run with {name} {state.physics.get(name)}, not {value}: {advice}")


def _summarize(folder: Path, n_atoms: int, settings: MDSettings, steps: int) -> MDResult:
    columns = read_log(folder)
    drift = None
    if settings.ensemble == "nve":
        drift = energy_drift(columns["time_fs"], columns["total_ev"], n_atoms)
    later = columns["time_fs"] >= 0.1 * columns["time_fs"][-1]
    temperature = float(columns["temperature_k"][later].mean())
    result = MDResult(folder, n_atoms, steps, temperature, drift)
    facts = {
        **asdict(settings),
        "steps": steps,
        "n_atoms": n_atoms,
        "mean_temperature_k": temperature,
        **(drift.numbers() if drift else {}),
    }
    write_text(folder / SUMMARY, json.dumps(facts, indent=2) + "\n")
    return result
