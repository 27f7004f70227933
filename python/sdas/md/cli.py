"""`sdas md`: run dynamics with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError
from sdas.run.folder import DYNAMICS


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
    friction: Annotated[float, typer.Option(help="Friction of the thermostat, 1/ps.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostat.")] = 0,
    every: Annotated[int, typer.Option(help="Steps between frames of the trajectory and rows of the log.")] = 10,
    frame: Annotated[int, typer.Option(help="Which frame of the structure file; negative counts from the end.")] = 0,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the CPU.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one is often best for a small molecule.")] = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model first, for about a minute; needs a C++ compiler on a CPU."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default md in the run's.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew instead of resuming the run in the folder.")
    ] = False,
) -> None:
    """Run molecular dynamics; an interrupted run is resumed.

    Writes trajectory.extxyz, log.csv, md.json and the state from which to resume.
    """
    from sdas.md import MDSettings, SDASCalculator, simulate
    from sdas.md.forces import DTYPES
    from sdas.md.structure import read_structure
    from sdas.run.model import results_folder

    if dtype not in DTYPES:
        raise SdasError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    settings = MDSettings(steps, timestep, temperature, ensemble, friction, seed, every)
    atoms = read_structure(structure, frame, given)
    calculator = SDASCalculator(model, DTYPES[dtype], device, compile="inductor" if compile else None)
    folder = out or results_folder(model) / DYNAMICS
    result = simulate(atoms, calculator, settings, folder, fresh=fresh, progress=True)
    typer.echo(f"{result.steps} steps of {result.n_atoms} atoms, mean temperature {result.mean_temperature_k:.0f} K")
    if result.drift is not None:
        typer.echo(
            f"energy drift {result.drift.drift_mev_per_atom_per_ps:+.4f} meV/atom/ps, "
            f"fluctuation {result.drift.fluctuation_mev_per_atom:.4f} meV/atom"
        )
    typer.echo(f"written to {result.folder}")
