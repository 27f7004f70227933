"""Wang–Landau dynamics in a folder: it resumes, and says how far it has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from sdas.documents import write_document
from sdas.errors import SdasError
from sdas.files import write_atomically
from sdas.free_energy.bias import WangLandauBias
from sdas.free_energy.comparison import SamplingError, sampling_error
from sdas.free_energy.figure import landscape_figure
from sdas.free_energy.landscape import DOCUMENT, Landscape
from sdas.free_energy.reweighting import FEWEST, Reweighting
from sdas.free_energy.single_points import Reference, draw, reweighted, start_frame
from sdas.free_energy.variables import Axis, Variable
from sdas.md import Replicas
from sdas.md.forces import Forces
from sdas.md.replica_run import TRAJECTORY, run_replicas
from sdas.md.systems import Systems
from sdas.md.thermostats import thermostat_of
from sdas.md.trajectory import Trajectory

DYNAMICS, PICTURE = "dynamics", "free_energy.svg"
CONVERGED = 1e-3
"""k_B T per visit, below which what is added no longer shows."""


@dataclass(frozen=True)
class Sampling:
    """Dynamics with a growing bias.

    replicas: in groups of `walkers` that share a bias; groups are independent and give the error bars. increment: the
    first, in k_B T per visit. every: steps between visits. friction_per_ps: of Langevin's thermostat.
    """

    temperature_k: float = 300.0
    steps: int = 100_000
    timestep_fs: float = 0.5
    replicas: int = 4
    walkers: int = 1
    increment: float = 0.05
    every: int = 10
    friction_per_ps: float = 10.0
    seed: int = 0
    save_every: int = 2000

    def __post_init__(self) -> None:
        if self.every < 1 or self.steps < 1:
            raise SdasError(f"steps and every must be 1 at least, got {self.steps} and {self.every}")


@dataclass(frozen=True)
class FreeEnergy:
    """What came of a run.

    flatness, increments: of each group. error: against a reference. reweighting: to a reference of single energies,
    which is called `reference`.
    cost: seconds of CPU that the dynamics took, and single energies with the seconds that they took. notes: sentences.
    """

    landscape: Landscape
    flatness: list[float]
    increments: list[float]
    error: SamplingError | None
    reweighting: Reweighting | None
    reference: str | None
    cost: dict[str, float]
    notes: list[str]


def free_energy(
    forces: torch.nn.Module | str | Path | Forces,
    atoms: Atoms,
    axes: Sequence[Axis],
    sampling: Sampling,
    folder: str | Path,
    *,
    reference: Landscape | Reference | None = None,
    fresh: bool = False,
    progress: bool = False,
    **options: Any,
) -> FreeEnergy:
    """Free energies along one or two variables, in k_B T: −ln of how likely their values are.

    An interrupted run is resumed to the bit; more steps lengthen one. Writes free_energy.json and free_energy.svg.

    Args:
        forces, options: see :class:`sdas.md.Replicas`.
        atoms: the start of every replica.
        axes: variables and ranges.
        folder: of the results; the dynamics lie in it.
        reference: to give the sampling error: free energies of its own dynamics, or single energies for the model's
            frames, as :class:`sdas.free_energy.SinglePoints` gives, which is far more precise.

    Raises:
        SdasError: an argument is wrong, every replica exploded, or a variable did not move.
    """
    for axis in axes:
        check = getattr(axis.variable, "check", None)
        if check is not None:
            check(len(atoms))
    if isinstance(reference, Reference):
        reference.check(start_frame(atoms))
    elif not isinstance(reference, Landscape | None):
        raise SdasError(f"reference must be a Landscape or SinglePoints, got {type(reference).__name__}")
    invariant = all(isinstance(axis.variable, Variable) for axis in axes)
    bias = WangLandauBias(
        axes,
        sampling.temperature_k,
        sampling.replicas,
        sampling.walkers,
        sampling.increment,
        sampling.every,
        invariant=invariant,
    )
    replicas = Replicas(
        forces,
        [atoms] * sampling.replicas,
        thermostat_of("langevin", friction_per_ps=sampling.friction_per_ps),
        sampling.temperature_k,
        bias=bias,
        timestep_fs=sampling.timestep_fs,
        seed=sampling.seed,
        **options,
    )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {axis.name: [axis.low, axis.high, axis.bins] for axis in axes}
    first: list[int] = []
    clock = [time.process_time()]

    def visit(now: Replicas) -> None:
        before, clock[0] = clock[0], time.process_time()
        bias.seconds += clock[0] - before
        if not first:
            first.append(now.step)  # this state has been visited before it was saved
        elif len(now) and now.step % bias.every == 0:
            bias.deposit(now.motion.systems)
            if now.step % (10 * bias.every) == 0:
                bias.refine()

    run_replicas(
        replicas,
        sampling.steps,
        target / DYNAMICS,
        every=max(sampling.every, sampling.save_every // 20),
        save_every=sampling.save_every,
        fresh=fresh,
        progress=progress,
        observe=visit,
    )
    ended = [verdict for verdict in replicas.verdicts if verdict is not None]
    if len(ended) == sampling.replicas:
        raise SdasError(
            f"{target}: all replicas exploded, the first at step {ended[0].step}: {ended[0].reason}. Their "
            f"trajectories are kept. {_what_to_try(axes, atoms)}; then run again with --fresh"
        )
    _check_motion(bias)
    result = _result(bias, replicas)
    if isinstance(reference, Landscape):
        result = replace(result, error=sampling_error(result.landscape, reference))
    elif reference is not None:
        result = _with_single_energies(result, bias, replicas, reference, target, progress)
    facts |= {"steps": replicas.step, "temperature_k": sampling.temperature_k}
    _write(result, target, facts, getattr(replicas.forces, "fingerprint", None))
    return result


def _what_to_try(axes: Sequence[Axis], atoms: Atoms) -> str:
    """Against replicas that explode: the walls pull at a start outside of a range."""
    start = Systems.of([atoms])
    for axis in axes:
        value = float(axis.value(start))
        if not axis.low <= value <= axis.high:
            return (
                f"At the start {axis.name} is {value:.4g}, outside of its range {axis.low:g}:{axis.high:g}, and the "
                "walls pull hard: start from a structure within, or widen the range"
            )
    return "Try a shorter time step or a smaller increment"


def _check_motion(bias: WangLandauBias) -> None:
    """Raise SdasError if a variable did not move."""
    visits = bias.visits.sum(0)
    if not float(visits.sum()):
        raise SdasError(f"{bias.axes[0].name}: no visit within the range: is it in degrees or Å, and around the start?")
    for number, axis in enumerate(bias.axes):
        others = tuple(each for each in range(visits.dim()) if each != number)
        count = int(((visits.sum(others) if others else visits) > 0).sum())
        if count < 3:
            raise SdasError(
                f"{axis.name} never moves: it stayed in {count} of {axis.bins} bins. Are its atoms fixed? Else run "
                "longer, or raise the increment"
            )


def _result(bias: WangLandauBias, replicas: Replicas) -> FreeEnergy:
    landscape, notes = Landscape.of(bias), []
    empty = int((~landscape.known).sum())
    if empty:
        notes.append(f"{empty} of {landscape.known.size} bins are empty: not every group of replicas has been there")
    increments = bias.increment.tolist()
    if max(increments) > CONVERGED:
        notes.append(f"not converged: a visit still adds {max(increments):.2g} k_B T, wants {CONVERGED:g}: run longer")
    if len(landscape.groups) == 1:
        notes.append("no error bars: they are of independent groups of replicas, and there is one")
    for replica, verdict in enumerate(replicas.verdicts):
        if verdict is not None:
            notes.append(f"replica {replica} ended at step {verdict.step}: {verdict.reason}")
    cost = {"dynamics_s": float(bias.seconds), "single_energies": 0, "single_energies_s": 0.0}
    return FreeEnergy(landscape, bias.flatness(), increments, None, None, None, cost, notes)


def _with_single_energies(
    result: FreeEnergy, bias: WangLandauBias, replicas: Replicas, reference: Reference, folder: Path, progress: bool
) -> FreeEnergy:
    """The result with the reference reweighted from the model's frames."""
    drawn = draw(replicas, bias, Trajectory(folder / DYNAMICS / TRAJECTORY), reference.labels)
    energies = reference.energies(drawn.frames, folder, progress)
    found = reweighted(drawn, energies, bias.visits.shape[1:], bias.thermal)
    visited, notes = result.landscape.known, [*result.notes, *energies.notes]
    poor = visited & ~found.known
    if poor.any():
        more = (
            "run longer, for more frames" if (found.frames[poor] < reference.labels).any() else "draw more (--labels)"
        )
        notes.append(
            f"the reference is known in {int((found.known & visited).sum())} of {int(visited.sum())} bins. In the "
            f"others, frames of the model are worth fewer than {FEWEST} of its own: {more}, or make the model better"
        )
    cost = result.cost | {"single_energies": len(drawn.frames), "single_energies_s": energies.seconds}
    error = found.sampling_error()
    return replace(result, error=error, reweighting=found, reference=reference.name, cost=cost, notes=notes)


def _write(result: FreeEnergy, folder: Path, facts: dict[str, Any], model: str | None) -> None:
    reweighting = result.reweighting
    content = {
        **result.landscape.as_dict(),
        "flatness": [float(np.nan_to_num(each)) for each in result.flatness],
        "increments_kt": result.increments,
        "sampling_error": None if result.error is None else result.error.as_dict(),
        "reweighting": None
        if reweighting is None
        else {"reference": result.reference, **reweighting.as_dict(result.landscape)},
        "cost": result.cost,
        "notes": result.notes,
        "run": facts,
        "model": model,
    }
    write_document(folder / DOCUMENT, content)
    picture = landscape_figure(result.landscape, reweighting)
    write_atomically(folder / PICTURE, lambda file: file.write(picture))
