"""`sdas evaluate`: errors of a trained model on labelled frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from sdas.config import load_config
from sdas.data import Frame, read_frames
from sdas.errors import SdasError
from sdas.run.lock import locked
from sdas.train import run_files


def evaluate(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    data: Annotated[
        list[str] | None, typer.Option(help="Labelled frames, a file or a cache; by default the run's test frames.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Frames per call of the model.")] = 16,
    stress: Annotated[bool, typer.Option("--stress", help="Compare stresses too.")] = False,
    units: Annotated[str | None, typer.Option(help="Units of raw files, such as kcal/mol.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default MODEL.")] = None,
) -> None:
    """Errors of energies and forces on labelled frames.

    Writes evaluation.json and predictions.npz.
    """
    from sdas.evaluate import evaluate as run
    from sdas.evaluate import load_run_model, save_evaluation

    potential = load_run_model(model, device)
    frames, source = _frames(model, data, units)
    with locked(out or model):
        result = run(potential, frames, batch_size, stress=stress, progress=True)
        path = save_evaluation(result, out or model, model=str(model), data=source)
    numbers = result.metrics
    typer.echo(
        f"{result.n_frames} frames: force MAE {numbers['force_mae_mev_per_ang']:.2f} meV/Å "
        f"(RMSE {numbers['force_rmse_mev_per_ang']:.2f}), "
        f"energy MAE {numbers['energy_mae_mev']:.2f} meV (RMSE {numbers['energy_rmse_mev']:.2f})"
    )
    typer.echo(f"written: {path}")


def _frames(model: Path, data: list[str] | None, units: str | None) -> tuple[Iterable[Frame], str]:
    """The frames that `--data` names, or the test frames of the run, and where they come from in words."""
    if data:
        streams = (read_frames(path, units=units) for path in data)
        return chain.from_iterable(streams), ", ".join(data)
    if not (model / run_files.CONFIG).is_file():
        raise SdasError(f"{model} is not a run directory: name labelled frames with --data")
    cache, split = run_files.open_data(load_config(model / run_files.CONFIG).data, model)
    if len(split.test) == 0:
        raise SdasError(f"{model}: the run kept no frames for tests: name labelled frames with --data")
    return [cache[int(index)] for index in split.test], f"test frames of {model}"
