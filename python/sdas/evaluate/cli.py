"""`sdas evaluate`: errors of a trained model on labelled frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config.reading import flag_of
from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError
from sdas.run.lock import locked


@takes_reading_options
def evaluate(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    given: dict[str, Any],
    files: Annotated[
        list[str] | None, typer.Argument(help="Labelled frames, files or caches; by default the run's test frames.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="The same as FILES.", hidden=True)] = None,
    isolated_atoms: Annotated[
        bool, typer.Option("--isolated-atoms", help="Compare frames of isolated atoms too.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Frames per call of the model.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default the run directory.")] = None,
) -> None:
    """Errors of energies, forces and stresses on labelled frames, for each file and each config_type.

    Raw files are read as the run read its own, but for what flags say. Writes evaluation.json and predictions.npz.
    """
    from sdas.evaluate import evaluate as run
    from sdas.evaluate import save_evaluation
    from sdas.evaluate.files import check_place
    from sdas.evaluate.labelled_frames import frames_of_files, frames_of_the_run
    from sdas.evaluate.table import rows_of, sentence, table
    from sdas.run.model import load_run_model, results_folder

    potential = load_run_model(model, device)
    folder = out or results_folder(model)
    paths = [*(files or ()), *(data or ())]
    if paths:
        labelled = frames_of_files(model, paths, given, isolated_atoms)
    elif given:
        raise SdasError(f"{flag_of(next(iter(given)))} is for raw files: name them after the model")
    elif isolated_atoms:
        raise SdasError("--isolated-atoms is for files, as no isolated atom is a test frame: name them after the model")
    else:
        labelled = frames_of_the_run(model)
    with locked(folder):
        check_place(folder)
        found = run(potential, labelled.checked(), batch_size, progress=True)
        result = replace(found, by_file=found.by(labelled.files))
        path = save_evaluation(result, folder, model=str(model), data=labelled.source, **labelled.facts())
    typer.echo(f"{result.n_frames} frames: {sentence(result.metrics)}")
    if len(rows_of(result)) > 1:
        typer.echo(table(result))
    for line in labelled.lines():
        typer.echo(f"  {line}")
    typer.echo(f"written: {path}")
