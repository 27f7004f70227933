"""``sdas inner-cutoff``: a trained model that is safe where atoms come closer than in its training frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config.reading import flag_of
from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError


@takes_reading_options
def inner_cutoff(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Directory of the new model.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Frames that it was trained on, files or caches; by default those of the run."),
    ] = None,
) -> None:
    """Give a trained model an inner cutoff for every pair of elements: the shortest distance in its training frames.

    From there on it is the same to the last bit. Closer atoms repel as nuclei do, in place of what the network says.
    """
    from ase.data import chemical_symbols

    from sdas.config.load import load_data_config
    from sdas.evaluate.labelled_frames import frames_of_files
    from sdas.run.checkpoint import check_place, read_model_document, save_model
    from sdas.run.folder import CONFIG, MODEL
    from sdas.run.frames import open_data
    from sdas.run.model import DOCUMENT, load_run_model
    from sdas.train.inner_cutoffs import with_inner_cutoff

    trained = load_run_model(model)
    check_place(out)
    if (out / DOCUMENT).is_file():
        raise SdasError(f"{out}: holds a model already: choose another --out")
    if files:
        frames = list(frames_of_files(model, files, given).frames)
    elif given:
        raise SdasError(f"{flag_of(next(iter(given)))} is for raw files: name them after the model")
    elif not (model / CONFIG).is_file():
        raise SdasError(f"{model} is not a run directory: name the frames that the model was trained on after it")
    else:
        cache, split = open_data(load_data_config(model / CONFIG), model)
        frames = [cache[index] for index in split.train.tolist()]
    made = with_inner_cutoff(trained, frames)
    folder = model if (model / DOCUMENT).is_file() else model / MODEL
    save_model(out, made, read_model_document(folder)["extra"])
    lengths = made.repulsion.lengths()  # type: ignore[union-attr, operator]
    typer.echo(f"inner cutoffs (Å) from {len(frames)} frame{'s' * (len(frames) != 1)}:")
    for (a, b), length in lengths.items():
        typer.echo(f"    {chemical_symbols[a]}–{chemical_symbols[b]} {length:.3f}")
    typer.echo(f"model: {out}")
