"""Run replicas, write them down as they go, and resume them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from sdas.documents import write_document
from sdas.errors import SdasError
from sdas.md.barostats import BAR
from sdas.md.drift import energy_drift, settled
from sdas.md.faults import Verdict
from sdas.md.folder import LOG, STATE, read_columns, run_in
from sdas.md.replica_state import ReplicaState
from sdas.md.replicas import Replicas
from sdas.md.state import Identity, Written
from sdas.md.trajectory import Trajectory, TrajectoryWriter

SUMMARY, TRAJECTORY = "replicas.json", "trajectory"
COLUMNS = (
    "step",
    "time_fs",
    "replica",
    "potential_ev",
    "kinetic_ev",
    "total_ev",
    "conserved_ev",
    "temperature_k",
    "volume_ang3",
    "pressure_bar",
)
HEADER = ",".join(COLUMNS) + "\n"
FILES = frozenset({LOG, STATE, SUMMARY, TRAJECTORY})
FORMATS = ("extxyz", "traj")
"""Of ASE, in which trajectories can be written too."""


@dataclass(frozen=True)
class ReplicaResult:
    """One replica of a run: steps that it made, its verdict if it has ended, and means over the later nine tenths.

    drift_mev_per_atom_per_ps: of what is conserved, as in a log; None with a barostat, or where there are few rows.
    """

    steps: int
    verdict: Verdict | None
    mean_temperature_k: float
    drift_mev_per_atom_per_ps: float | None


@dataclass(frozen=True)
class ReplicasResult:
    """folder: of log.csv, trajectory and replicas.json. steps: of the whole run. ns_per_day: of this call, together.

    stable_fs: for how long a replica ran before it ended, on average; the whole run for those that did not.
    """

    folder: Path
    steps: int
    replicas: list[ReplicaResult]
    stable_fs: float
    ns_per_day: float


def run_replicas(
    replicas: Replicas,
    steps: int,
    folder: str | os.PathLike[str],
    *,
    every: int = 10,
    save_every: int = 500,
    fresh: bool = False,
    progress: bool = False,
    observe: Callable[[Replicas], None] | None = None,
) -> ReplicasResult:
    """Run `steps` steps, or what is left of them if `folder` holds an interrupted run of replicas made alike.

    A resumed run writes what the uninterrupted one would have written, to the bit. More steps than before lengthen it.

    Args:
        replicas: as they were made, before any step.
        steps: of the whole run.
        folder: gets log.csv, trajectory/ (see :mod:`sdas.md.trajectory`), state.npz and replicas.json.
        every: steps between rows of the log and frames of the trajectory.
        save_every: steps between saved states.
        fresh: begin anew. The run that is there is replaced, in one step, once the new one has begun.
        observe: is given the replicas in the state from which this call goes on and after every step.

    Raises:
        SdasError: `folder` is in use, holds other files, or a run of others, or with other settings.
    """
    target = Path(folder)
    if replicas.step:
        raise SdasError(f"run_replicas: wants replicas that have made no step yet, got them at step {replicas.step}")
    for name, value, least in (("steps", steps, 0), ("every", every, 1), ("save_every", save_every, 1)):
        if value < least:
            raise SdasError(f"{name} must be at least {least}, got {value}")
    identity = replicas.identity({"sample_every": every})

    def begin(place: Path) -> None:
        _begin(replicas, identity, place)

    with run_in(target, fresh, ReplicaState.load, begin, HEADER, FILES) as state:
        state.check(identity, target)
        state.log.cut(target / LOG)
        writer = TrajectoryWriter(target / TRAJECTORY, state.facts["chunks"])
        state.restore(replicas)
        with open(target / LOG, "a") as log:
            recorder = _Recorder(replicas, identity, target, log, writer, every, save_every, observe)
            ran = replicas.run(max(0, steps - replicas.step), recorder, progress=progress)
            recorder.save()
    return _summarize(replicas, identity, target, ran.ns_per_day)


def _begin(replicas: Replicas, identity: list[Identity], place: Path) -> None:
    """Write the start."""
    writer = TrajectoryWriter(place / TRAJECTORY)
    writer.begin(replicas.motion.systems)
    with open(place / LOG, "a") as log:
        log.write(HEADER)
        recorder = _Recorder(replicas, identity, place, log, writer, 1, 1, None)
        recorder.sample()
        recorder.save()


class _Recorder:
    """Sees every step, and writes what is due after it."""

    def __init__(
        self,
        replicas: Replicas,
        identity: list[Identity],
        folder: Path,
        log: IO[str],
        writer: TrajectoryWriter,
        every: int,
        save_every: int,
        observe: Callable[[Replicas], None] | None,
    ) -> None:
        self.replicas, self.identity, self.folder = replicas, identity, folder
        self.log, self.writer, self.every, self.save_every = log, writer, every, save_every
        self.observe, self.first = observe, replicas.step
        self.ended = set(replicas.ended)

    def __call__(self, replicas: Replicas) -> None:
        """After a step; the state from which a call goes on is written already."""
        if self.observe is not None:
            self.observe(replicas)
        if replicas.step == self.first:
            return
        for replica in sorted(set(replicas.ended) - self.ended):
            self.writer.add_ended(replica, replicas.step, replicas.ended[replica])
        self.ended = set(replicas.ended)
        if len(replicas) and replicas.step % self.every == 0:
            self.sample()
        if replicas.step % self.save_every == 0:
            self.save()

    def sample(self) -> None:
        """Rows of the log and frames of the trajectory."""
        replicas = self.replicas
        potential, kinetic, conserved = replicas.results["energy"], replicas.kinetic(), replicas.conserved()
        volumes = replicas.motion.systems.volumes()
        pressure = replicas.pressure() / BAR if replicas.barostat is not None else torch.full_like(volumes, torch.nan)
        columns = (potential, kinetic, potential + kinetic, conserved, replicas.temperature(), volumes, pressure)
        rows = zip(replicas.running, *(column.tolist() for column in columns), strict=True)
        for replica, *values in rows:
            numbers = ",".join(f"{value:.10g}" for value in values)
            self.log.write(f"{replicas.step},{replicas.time_fs:.6g},{replica},{numbers}\n")
        self.writer.add(replicas)

    def save(self) -> None:
        """Make everything up to this step survive a crash."""
        self.writer.flush()
        self.log.flush()
        os.fsync(self.log.fileno())
        written = Written.of(self.folder / LOG, self.log.tell())
        ReplicaState.of(self.replicas, self.identity, written, self.writer.chunks).save(self.folder)


def read_log(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Columns of the log of replicas by name, a row for each replica and sample."""
    return read_columns(folder, COLUMNS)


def check_formats(formats: Sequence[str]) -> None:
    """Raise SdasError for a format in which trajectories cannot be written."""
    for kind in formats:
        if kind not in FORMATS:
            raise SdasError(f"trajectories can be written as {' or '.join(FORMATS)}, got {kind!r}")


def write_trajectories(folder: Path, formats: Sequence[str]) -> None:
    """Write every replica's frames beside the chunks, as `trajectory/replica-000.extxyz` and `.traj`."""
    check_formats(formats)
    trajectory = Trajectory(folder / TRAJECTORY)
    for kind in formats:
        for replica in range(len(trajectory)):
            trajectory.write(replica, trajectory.folder / f"replica-{replica:03d}.{kind}")


def _summarize(replicas: Replicas, identity: list[Identity], folder: Path, ns_per_day: float) -> ReplicasResult:
    columns, results = read_log(folder), []
    for replica, verdict in enumerate(replicas.verdicts):
        rows = columns["replica"] == replica
        time_fs, temperature = columns["time_fs"][rows], columns["temperature_k"][rows]
        drift = None
        if replicas.barostat is None:
            drift = energy_drift(time_fs, columns["conserved_ev"][rows], len(replicas.start[replica]))
        slope = None if drift is None else drift.drift_mev_per_atom_per_ps
        steps = replicas.step if verdict is None else verdict.step
        results.append(ReplicaResult(steps, verdict, float(temperature[settled(time_fs)].mean()), slope))
    stable_fs = float(np.mean([each.steps for each in results])) * replicas.timestep_fs
    facts: dict[str, Any] = {
        **identity[0].physics,
        "model": identity[0].model,
        "dtype": identity[0].dtype,
        "steps": replicas.step,
        "stable_fs": stable_fs,
        "ended": sum(each.verdict is not None for each in results),
        "replicas": [
            {
                "n_atoms": len(atoms),
                "steps": each.steps,
                "verdict": None if each.verdict is None else each.verdict.reason,
                "mean_temperature_k": each.mean_temperature_k,
                "drift_mev_per_atom_per_ps": each.drift_mev_per_atom_per_ps,
            }
            for atoms, each in zip(replicas.start, results, strict=True)
        ],
    }
    write_document(folder / SUMMARY, facts)
    return ReplicasResult(folder, replicas.step, results, stable_fs, ns_per_day)
