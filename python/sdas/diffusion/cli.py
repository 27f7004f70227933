"""`sdas diffusion`: diffusion constants of a trajectory, or of a model's dynamics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdas.errors import SdasError
from sdas.run.folder import DIFFUSION

if TYPE_CHECKING:
    from sdas.diffusion.analysis import Analysis, Liquid

DYNAMICS = "dynamics"


def diffusion(
    source: Annotated[
        Path,
        typer.Argument(
            help="Trajectory: a folder of 'sdas md', a run directory with one, .extxyz or .traj; or a model."
        ),
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Trajectory of the reference, to give the model's error.")
    ] = None,
    element: Annotated[list[str] | None, typer.Option(help="Only this element; may be repeated.")] = None,
    interval: Annotated[float | None, typer.Option(help="Time between frames of a file that tells none, fs.")] = None,
    skip: Annotated[float, typer.Option(help="Leave out so much at the beginning, fs.")] = 0.0,
    start: Annotated[
        float | None, typer.Option(help="Lag from which displacements are linear, fs; by default found.")
    ] = None,
    viscosity: Annotated[
        float | None, typer.Option(help="Of the liquid, mPa·s: correct for the size of a cubic box (Yeh and Hummer).")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the correction, and of dynamics, K.")] = None,
    structure: Annotated[
        Path | None, typer.Option(help="Run the model's dynamics from this periodic structure first.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of the dynamics, those of an interrupted run included; 20000 unless given."),
    ] = None,
    timestep: Annotated[float | None, typer.Option(help="Of the dynamics, fs; 0.5 unless given.")] = None,
    every: Annotated[int | None, typer.Option(help="Steps between frames of the dynamics; 20 unless given.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Of the dynamics; 1 unless given.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the model's arithmetic: float64, unless given, or float32.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; by default diffusion in that of the trajectory or model."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin dynamics anew instead of resuming them.")] = False,
) -> None:
    """Self-diffusion constants with 95 % intervals, from mean squared displacements.

    Writes diffusion.json and diffusion.svg. With --structure, the model's dynamics are run first, and resumed where
    they were interrupted.
    """
    from sdas.diffusion.analysis import Reading, analyze, write_analysis
    from sdas.diffusion.dynamics import DynamicsSettings, run_dynamics
    from sdas.diffusion.paths import model_of
    from sdas.md.structure import read_structure
    from sdas.run.model import results_folder

    liquid = _liquid(viscosity, temperature)
    given = {"steps": steps, "timestep_fs": timestep, "every": every, "replicas": replicas, "dtype": dtype}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if structure is None:
        _refuse_dynamics([*chosen, *(["fresh"] if fresh else [])], temperature if liquid is None else None)
    folder = out or (source if source.is_dir() else source.parent) / DIFFUSION
    trajectory = source
    if structure is not None:
        if temperature is None:
            raise SdasError("dynamics need a temperature: give --temperature, in K")
        folder = out or results_folder(source) / DIFFUSION
        trajectory = folder / DYNAMICS
        folder.mkdir(parents=True, exist_ok=True)
        settings = DynamicsSettings(temperature, seed=seed, **chosen)
        run_dynamics(source, read_structure(structure, 0), settings, trajectory, fresh)
    reading = Reading(element or (), interval, skip, start, seed)
    found = analyze(trajectory, reading, reference, liquid)
    facts: dict[str, Any] = {"trajectory": str(trajectory), "skip_fs": skip, "model": model_of(trajectory)}
    facts |= {"reference_trajectory": str(reference)} if reference is not None else {}
    facts |= {"temperature_k": temperature, "viscosity_mpa_s": viscosity} if liquid is not None else {}
    write_analysis(found, folder, facts)
    _tell(found)
    typer.echo(f"written to {folder}")


def _refuse_dynamics(names: list[str], temperature: float | None) -> None:
    """Raise SdasError for options of dynamics where none are run."""
    flags = [f"--{name.removesuffix('_fs')}" for name in names]
    if temperature is not None:
        flags.append("--temperature")
    if flags:
        raise SdasError(
            f"{', '.join(flags)}: nothing is run, as the trajectory is there already. Give --structure to run the "
            "model's dynamics first, or leave this out"
        )


def _liquid(viscosity: float | None, temperature: float | None) -> Liquid | None:
    from sdas.diffusion.analysis import Liquid

    if viscosity is None:
        return None
    if temperature is None:
        raise SdasError("the finite-size correction needs a temperature: give --temperature, in K")
    return Liquid(temperature, viscosity)


def _tell(found: Analysis) -> None:
    for each in found.constants:
        low, high = each.interval
        typer.echo(
            f"{each.element}: D = {each.mean:.4g} Å²/ps (95 %: {low:.4g} to {high:.4g}), {each.mean * 1e-4:.3g} cm²/s"
        )
        typer.echo(
            f"  displacements from {each.start_fs:g} fs on, of {each.replicas} × {each.atoms} atoms over "
            f"{each.length_fs / 1000:g} ps"
        )
        added = found.correction_ang2_per_ps
        if added is None:
            typer.echo("  of this box; with --viscosity, corrected for its size")
        else:
            typer.echo(f"  in an infinite box {each.mean + added:.4g} Å²/ps: Yeh and Hummer add {added:.3g}")
    for error in found.errors:
        low, high = error.interval
        overlap = "overlap" if error.overlap else "do not overlap"
        typer.echo(f"{error.element}: {error.error:.1%} off the reference (95 %: {low:.1%} to {high:.1%})")
        typer.echo(f"  the intervals of the two constants {overlap}")
    for note in found.notes:
        typer.secho(f"note: {note}", err=True)
