"""`sdas md`: run dynamics with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError
from sdas.md.barostats import WATER_PER_BAR, Barostat, barostat_of
from sdas.run.folder import DYNAMICS, REPLICAS

if TYPE_CHECKING:
    from sdas.md.replica_run import ReplicasResult

THERMOSTAT_OF_ENSEMBLE = {"nve": "nve", "nvt": "langevin"}
RELAXING = ("bussi", "nose-hoover")
"""Thermostats with a relaxation time."""
RELAXATION_FS = 100.0


@takes_reading_options
def md(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    structure: Annotated[Path, typer.Option(help="Start: any file that ASE or 'sdas data' reads.")],
    given: dict[str, Any],
    steps: Annotated[int, typer.Option(help="Number of steps, those of an interrupted run included.")] = 2000,
    timestep: Annotated[float, typer.Option(help="Time step, fs.")] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the first velocities and the thermostat, K.")
    ] = 300,
    ensemble: Annotated[str, typer.Option(help="nve (velocity Verlet) or nvt (Langevin).")] = "nve",
    friction: Annotated[
        float | None, typer.Option(help="Friction of Langevin's thermostat, 1/ps; 2 unless given.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Run so many replicas at once, with seeds that count on from --seed.")
    ] = None,
    thermostat: Annotated[
        str | None, typer.Option(help="Of replicas: nve, langevin, bussi or nose-hoover; by default as --ensemble.")
    ] = None,
    relaxation: Annotated[
        float | None,
        typer.Option(
            help=f"Relaxation time of Bussi's and Nosé–Hoover's thermostat, fs; {RELAXATION_FS:g} unless given."
        ),
    ] = None,
    pressure: Annotated[
        float | None, typer.Option(help="Of replicas: constant pressure, bar; needs a thermostat too.")
    ] = None,
    barostat: Annotated[
        str | None, typer.Option(help="With --pressure: cell-rescaling (unless given) or berendsen.")
    ] = None,
    compressibility: Annotated[
        float | None,
        typer.Option(help=f"With --pressure: of the system, 1/bar; that of water, {WATER_PER_BAR:g}, unless given."),
    ] = None,
    stretch: Annotated[
        float | None, typer.Option(help="End a replica when a bond of the start changes by so much, Å.")
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option(help="Write trajectories of replicas as extxyz or traj too; may be repeated.")
    ] = None,
    skin: Annotated[float, typer.Option(help="List neighbors so much beyond the cutoff, Å.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostat.")] = 0,
    every: Annotated[int, typer.Option(help="Steps between frames of the trajectory and rows of the log.")] = 10,
    frame: Annotated[int, typer.Option(help="Which frame of the structure file; negative counts from the end.")] = 0,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the CPU.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; one is often best for a small molecule.")
    ] = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model first, for about a minute; needs a C++ compiler on a CPU."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default md, or replicas, in the run's.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew instead of resuming the run in the folder.")
    ] = False,
) -> None:
    """Run molecular dynamics; an interrupted run is resumed.

    Writes trajectory.extxyz, log.csv, md.json and the state from which to resume. With --replicas, --thermostat or
    --pressure, replicas run at once: these write log.csv, replicas.json and compact trajectories.
    """
    from sdas.md import MDSettings, SDASCalculator, simulate
    from sdas.md.forces import DTYPES
    from sdas.md.structure import read_structure
    from sdas.run.model import results_folder

    if dtype not in DTYPES:
        raise SdasError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    friction_per_ps = MDSettings.friction_per_ps if friction is None else friction
    settings = MDSettings(steps, timestep, temperature, ensemble, friction_per_ps, seed, every)
    atoms = read_structure(structure, frame, given)
    bath = thermostat or THERMOSTAT_OF_ENSEMBLE[ensemble]
    _check_thermostat(bath, friction, relaxation)
    _check_barostat(bath, pressure, barostat, compressibility)
    if replicas is None and thermostat is None and pressure is None:
        if stretch is not None or write:
            raise SdasError("--stretch and --write are for replicas: give --replicas, --thermostat or --pressure too")
        calculator = SDASCalculator(model, DTYPES[dtype], device, "inductor" if compile else None, skin)
        folder = out or results_folder(model) / DYNAMICS
        result = simulate(atoms, calculator, settings, folder, fresh=fresh, progress=True)
        typer.echo(
            f"{result.steps} steps of {result.n_atoms} atoms, mean temperature {result.mean_temperature_k:.0f} K"
        )
        if result.drift is not None:
            typer.echo(
                f"energy drift {result.drift.drift_mev_per_atom_per_ps:+.4f} meV/atom/ps, "
                f"fluctuation {result.drift.fluctuation_mev_per_atom:.4f} meV/atom"
            )
        typer.echo(f"written to {result.folder}")
        return

    from sdas.md import Replicas
    from sdas.md.faults import Limits
    from sdas.md.replica_run import check_formats, run_replicas, write_trajectories

    check_formats(write or [])
    if replicas is not None and replicas < 1:
        raise SdasError(f"--replicas must be at least 1, got {replicas}")
    if compile:
        raise SdasError("--compile is not for replicas: leave it out")
    if thermostat is not None and THERMOSTAT_OF_ENSEMBLE[ensemble] not in ("nve", thermostat):
        raise SdasError(f"--ensemble {ensemble} and --thermostat {thermostat} differ: leave one of them out")
    running = Replicas(
        model,
        [atoms] * (1 if replicas is None else replicas),
        _thermostat(bath, friction_per_ps, RELAXATION_FS if relaxation is None else relaxation),
        temperature,
        barostat=None if pressure is None else _barostat(barostat or "cell-rescaling", pressure, compressibility),
        timestep_fs=timestep,
        seed=seed,
        limits=Limits(settings.closest_ang, settings.hottest_k, stretch),
        dtype=dtype,
        device=device,
        skin=skin,
    )
    folder = out or results_folder(model) / REPLICAS
    found = run_replicas(running, steps, folder, every=every, fresh=fresh, progress=True)
    write_trajectories(folder, write or [])
    _tell(found, len(atoms))


def _thermostat(name: str, friction: float, relaxation: float) -> Any:
    from sdas.md.thermostats import thermostat_of

    options = {"langevin": {"friction_per_ps": friction}}
    options |= {name: {"time_fs": relaxation} for name in RELAXING}
    return thermostat_of(name, **options.get(name, {}))


def _barostat(name: str, pressure: float, compressibility: float | None) -> Barostat:
    compressibility = WATER_PER_BAR if compressibility is None else compressibility
    return barostat_of(name, pressure_bar=pressure, compressibility_per_bar=compressibility)


def _check_thermostat(name: str, friction: float | None, relaxation: float | None) -> None:
    """Raise SdasError for an option that the thermostat of the run does not take."""
    if friction is not None and name != "langevin":
        raise SdasError(
            f"--friction is Langevin's, but the thermostat is {name}: give --ensemble nvt or --thermostat langevin, or "
            "leave it out"
        )
    if relaxation is not None and name not in RELAXING:
        raise SdasError(
            f"--relaxation is of {' and '.join(RELAXING)}, but the thermostat is {name}: give --thermostat bussi, or "
            "leave it out"
        )


def _check_barostat(
    thermostat: str, pressure: float | None, barostat: str | None, compressibility: float | None
) -> None:
    """Raise SdasError for an option without the pressure that it needs, and for a pressure without a thermostat."""
    if barostat is not None and pressure is None:
        raise SdasError(f"--barostat {barostat} needs the pressure that it holds: give --pressure too")
    if compressibility is not None and pressure is None:
        raise SdasError("--compressibility is of a barostat: give --pressure too")
    if pressure is not None and thermostat == "nve":
        raise SdasError(
            "--pressure needs a thermostat, for a barostat does not keep the energy: give --thermostat bussi, langevin "
            "or nose-hoover too"
        )


def _tell(found: ReplicasResult, n_atoms: int) -> None:
    """Lines of result; raises UnstableRunError if every replica has ended."""
    from sdas.md import UnstableRunError

    temperature = sum(each.mean_temperature_k for each in found.replicas) / len(found.replicas)
    typer.echo(
        f"{found.steps} steps of {len(found.replicas)} replicas of {n_atoms} atoms, mean temperature "
        f"{temperature:.0f} K, {found.ns_per_day:.3g} ns/day"
    )
    drifts = [each.drift_mev_per_atom_per_ps for each in found.replicas]
    known = sorted((drift for drift in drifts if drift is not None), key=abs)
    if known:
        typer.echo(f"drift of the conserved energy at most {known[-1]:+.4f} meV/atom/ps")
    for replica, each in enumerate(found.replicas):
        if each.verdict is not None:
            verdict = each.verdict
            typer.echo(f"replica {replica} ended at step {verdict.step} ({verdict.time_fs:g} fs): {verdict.reason}")
    if all(each.verdict is not None for each in found.replicas):
        raise UnstableRunError(
            f"all replicas exploded, after {found.stable_fs:g} fs on average; their trajectories are in "
            f"{found.folder}. Try a shorter time step or a lower temperature, or train the model on structures like "
            "the last frames"
        )
    typer.echo(f"stable for {found.stable_fs:g} fs on average; written to {found.folder}")
