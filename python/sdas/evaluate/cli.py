"""`sdas evaluate`: errors of a trained model on labelled frames."""

from __future__ import annotations

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
    data: Annotated[
        list[str] | None, typer.Option(help="Labelled frames, a file or a cache; by default the run's test frames.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Frames per call of the model.")] = 16,
    stress: Annotated[bool, typer.Option("--stress", help="Compare stresses too.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default the run directory.")] = None,
) -> None:
    """Errors of energies and forces on labelled frames.

    Raw files are read as the run read its own, but for what flags say. Writes evaluation.json and predictions.npz.
    """
    from sdas.evaluate import evaluate as run
    from sdas.evaluate import save_evaluation
    from sdas.evaluate.files import check_place
    from sdas.evaluate.labelled_frames import frames_of_files, frames_of_the_run
    from sdas.run.model import load_run_model, results_folder

    potential = load_run_model(model, device)
    folder = out or results_folder(model)
    if data:
        labels = ("energy", "forces", "stress") if stress else ("energy", "forces")
        labelled = frames_of_files(model, data, given, labels)
    elif given:
        raise SdasError(f"{flag_of(next(iter(given)))} is for raw files: name them with --data")
    else:
        labelled = frames_of_the_run(model)
    with locked(folder):
        check_place(folder)
        result = run(potential, labelled.frames, batch_size, stress=stress, progress=True)
        path = save_evaluation(result, folder, model=str(model), data=labelled.source, **labelled.facts())
    numbers = result.metrics
    typer.echo(
        f"{result.n_frames} frames: force MAE {numbers['force_mae_mev_per_ang']:.2f} meV/Å "
        f"(RMSE {numbers['force_rmse_mev_per_ang']:.2f}), "
        f"energy MAE {numbers['energy_mae_mev']:.2f} meV (RMSE {numbers['energy_rmse_mev']:.2f})"
    )
    for line in labelled.lines():
        typer.echo(f"  {line}")
    typer.echo(f"written: {path}")
