"""Run dynamics, write them down as they go, resume them, and stop them when they explode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from tqdm import tqdm

from sdas.documents import write_document
from sdas.errors import SdasError
from sdas.md.calculator import SDASCalculator
from sdas.md.constraints import degrees_of_freedom
from sdas.md.display import SHOW_EVERY, show_speed
from sdas.md.drift import Drift, energy_drift, settled
from sdas.md.folder import HEADER, LOG, SUMMARY, TRAJECTORY, read_log, run_in, write_frame
from sdas.md.settings import MDSettings
from sdas.md.state import Identity, SavedState, Written
from sdas.md.velocities import draw_velocities, moving_copy, stop_drift

BONDS_FAILED = "Did not converge"
"""What ASE says when it cannot keep bonds at their lengths."""


Observer = Callable[[int, Atoms, Mapping[str, Any]], None]
"""Called with the step, the atoms and the results of the calculator; it changes none of them."""


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
    observe: Observer | None = None,
) -> MDResult:
    """Run `settings.steps` steps from `atoms`, or what is left of them if `folder` holds an interrupted run.

    A resumed run goes on from the last saved state with its velocities and random numbers, so it writes what the
    uninterrupted run would have written. More steps than before lengthen a finished run.

    Args:
        atoms: the start; not changed. Momenta that it carries are replaced by ones drawn at the temperature. Its masses
            and constraints are those of the run; see :mod:`sdas.md.constraints` for the constraints that can be kept.
        folder: gets log.csv, trajectory.extxyz, state.npz and md.json. A folder with other files is refused.
        fresh: begin anew. The run that is there is replaced, in one step, once the new one has begun.
        observe: sees every step of this call, from the state that it goes on from, as `observe(step, atoms, results)`.
            Atoms and results are the run's own: copy what is to be kept. What it raises ends the run, which can be
            resumed.

    Raises:
        UnstableRunError: an energy or force is not finite, two atoms came too close, or the system is too hot.
        SdasError: the start cannot be used, or `folder` is in use, holds other files, or a run of another model,
            structure, masses or constraints, or with other settings.
    """
    target = Path(folder)
    moving = _prepared(atoms, calculator)
    degrees_of_freedom(moving, settings.ensemble == "nve")
    identity = Identity.of(moving, calculator.fingerprint, calculator.dtype_name, settings.physics())

    def begin(place: Path) -> None:
        _Run(moving, calculator, settings, identity, place).begin()

    with run_in(target, fresh, SavedState.load, begin) as state:
        state.identity.check(identity, target)
        run = _Run(moving, calculator, settings, identity, target)
        run.go_on(state, progress, observe)
        return _summarize(run, max(state.step, settings.steps))


class _Run:
    """Files and counters of a run in progress."""

    def __init__(
        self, atoms: Atoms, calculator: SDASCalculator, settings: MDSettings, identity: Identity, folder: Path
    ) -> None:
        self.atoms, self.calculator, self.settings = atoms, calculator, settings
        self.identity, self.folder = identity, folder
        self.log: IO[str]
        self.trajectory: IO[str]
        self.generator = np.random.Generator(np.random.PCG64(settings.seed))
        self.freedom = degrees_of_freedom(atoms, settings.ensemble == "nve")

    def begin(self) -> None:
        """Draw velocities and write the start; raises SdasError, and writes nothing, if it makes no sense."""
        draw_velocities(self.atoms, self.settings.temperature_k, self.generator)
        stop_drift(self.atoms)
        try:
            self.atoms.get_potential_energy()
            fault = self._fault()
        except ValueError as error:  # the neighbor list refuses non-finite or coinciding positions
            fault = str(error)
        if fault:
            raise SdasError(f"a run cannot start like this: {fault}")
        with self._outputs():
            self.log.write(HEADER)
            self.sample(0)
            self.save(0)

    def go_on(self, state: SavedState, progress: bool, observe: Observer | None) -> None:
        """From a saved state to the last step."""
        self.atoms.positions[:] = state.positions
        self.atoms.set_momenta(state.momenta, apply_constraint=False)
        self.generator.bit_generator.state = state.generator
        state.log.cut(self.folder / LOG)
        state.trajectory.cut(self.folder / TRAJECTORY)
        steps = range(state.step + 1, self.settings.steps + 1)
        dynamics = _integrator(self.atoms, self.settings, self.generator)
        bar = tqdm(
            total=self.settings.steps, initial=state.step, desc="md", unit="step", disable=None if progress else True
        )
        with self._outputs(), bar:
            if observe is not None:
                self.atoms.get_potential_energy()
                observe(state.step, self.atoms, self.calculator.results)
            for step in steps:
                self.advance(dynamics, step)
                if observe is not None:
                    observe(step, self.atoms, self.calculator.results)
                bar.update()
                if progress and step % SHOW_EVERY == 0:
                    show_speed(bar, self.settings.timestep_fs)
            if steps:
                self.save(steps[-1])

    @contextmanager
    def _outputs(self) -> Iterator[None]:
        """Log and trajectory open for appending."""
        with open(self.folder / LOG, "a") as self.log, open(self.folder / TRAJECTORY, "a") as self.trajectory:
            yield

    def advance(self, dynamics: VelocityVerlet | Langevin, step: int) -> None:
        """One step, and what is due after it."""
        try:
            dynamics.step()
        except (ValueError, RuntimeError) as error:
            # The neighbor list refuses non-finite or coinciding positions; bonds cannot be kept if atoms fly apart.
            if isinstance(error, RuntimeError) and str(error) != BONDS_FAILED:
                raise
            raise self._unstable(step, str(error)) from error
        if fault := self._fault():
            raise self._unstable(step, fault)
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
        write_frame(self.trajectory, self.atoms, {"step": step, "time_fs": time_fs})

    def temperature(self) -> float:
        """Kinetic temperature in K, over the motions that constraints leave free and the ensemble excites."""
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
            identity=self.identity,
            log=Written.of(self.folder / LOG, self.log.tell()),
            trajectory=Written.of(self.folder / TRAJECTORY, self.trajectory.tell()),
        ).save(self.folder)

    def _fault(self) -> str | None:
        """What is wrong with the present state, if anything is."""
        results = self.calculator.results
        if not (np.isfinite(results["energy"]) and np.isfinite(results["forces"]).all()):
            return "the energy or a force is not finite"
        if float(self.calculator.neighbors.closest[0]) < self.settings.closest_ang:
            distance, i, j = self.calculator.closest_pair()
            return f"atoms {i} and {j} are {distance:.3f} Å apart"
        temperature = self.temperature()
        if temperature > self.settings.hottest_k:
            return f"the temperature is {temperature:.0f} K"
        return None

    def _unstable(self, step: int, reason: str) -> UnstableRunError:
        time_fs = step * self.settings.timestep_fs
        return UnstableRunError(
            f"the run exploded at step {step} ({time_fs:g} fs): {reason}. Frames until then are in "
            f"{self.folder / TRAJECTORY}. Try a shorter time step or a lower temperature, or train the model on "
            f"structures like the last frames; then run again with --fresh"
        )


def _prepared(atoms: Atoms, calculator: SDASCalculator) -> Atoms:
    """What moves: the start with the calculator; raises SdasError if it cannot be used."""
    moving = moving_copy(atoms)
    calculator.check(moving)
    moving.calc = calculator
    return moving


def _integrator(atoms: Atoms, settings: MDSettings, generator: np.random.Generator) -> VelocityVerlet | Langevin:
    timestep = settings.timestep_fs * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep=timestep)
    friction = settings.friction_per_ps / (1000 * units.fs)
    return Langevin(
        atoms, timestep=timestep, temperature_K=settings.temperature_k, friction=friction, fixcm=False, rng=generator
    )


def _summarize(run: _Run, steps: int) -> MDResult:
    folder, settings, n_atoms = run.folder, run.settings, len(run.atoms)
    columns = read_log(folder)
    drift = None
    if settings.ensemble == "nve":
        drift = energy_drift(columns["time_fs"], columns["total_ev"], n_atoms)
    temperature = float(columns["temperature_k"][settled(columns["time_fs"])].mean())
    result = MDResult(folder, n_atoms, steps, temperature, drift)
    facts = {
        **asdict(settings),
        "steps": steps,
        "n_atoms": n_atoms,
        "degrees_of_freedom": run.freedom,
        "constraints": run.identity.constraints,
        "model": run.identity.model,
        "system": run.identity.system,
        "mean_temperature_k": temperature,
        **(drift.numbers() if drift else {}),
    }
    write_document(folder / SUMMARY, facts)
    return result
