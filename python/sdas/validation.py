"""``sdas validate``: whether a model may be trusted, and the page about it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError


@takes_reading_options
def validate(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    given: dict[str, Any],
    data: Annotated[
        Path | None, typer.Option(help="Frames, a file or a cache; by default the test frames of the run.")
    ] = None,
    frames: Annotated[int, typer.Option(help="How many frames, from the beginning.")] = 100,
    md_steps: Annotated[int, typer.Option(help="Steps of 0.5 fs at constant energy.")] = 2000,
    reference: Annotated[
        str | None, typer.Option(help="Calculator of ASE whose frequencies are compared, as tblite.ase:TBLite.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="File of the results; by default validate/validate.json in the run directory.")
    ] = None,
) -> None:
    """Symmetry, derivatives, smoothness, short range, vibrations, dynamics, errors: each passes or fails a bound.

    Writes JSON, and beside it a page with the ending .html. The exit status is 1 if a line fails.
    """
    from sdas.documents import write_document
    from sdas.evaluate.labelled_frames import frames_of_files, frames_of_the_run
    from sdas.report.validation import write_validation
    from sdas.run.folder import VALIDATION, VALIDATION_NUMBERS
    from sdas.run.lock import locked
    from sdas.run.model import load_run_model, results_folder
    from sdas.validate import validate as run

    if frames < 1 or md_steps < 0:
        raise SdasError(f"--frames must be at least 1 and --md-steps not negative, got {frames} and {md_steps}")
    if data is None and given:
        raise SdasError("options of reading are for the file of --data: name it")
    potential = load_run_model(model)
    calculator = None if reference is None else calculator_of(reference)
    place = json or results_folder(model) / VALIDATION / VALIDATION_NUMBERS
    if place.suffix == ".html":
        raise SdasError(f"--json names the file of the numbers, beside which the page ends in .html: got {place}")
    labelled = frames_of_the_run(model) if data is None else frames_of_files(model, [str(data)], given)
    chosen = list(islice(labelled.frames, frames))
    with locked(place.parent):
        found = run(potential, chosen, reference=calculator, md_steps=md_steps)
        facts = {"model": str(model), "data": labelled.source, "data_fingerprints": labelled.fingerprints}
        write_document(place, {**facts, "reference": reference, **found})
        page = write_validation(place)
    for check in found["checks"]:
        typer.echo(line(check))
    typer.echo(f"written: {place} and {page}")
    if not found["passed"]:
        raise typer.Exit(1)


def line(check: dict[str, Any]) -> str:
    """A check on one line."""
    number = "" if check["value"] is None else f" {check['value']:.3g} (bound {check['bound']:.3g} {check['unit']})"
    note = f"; {check['note']}" if check["note"] else ""
    return f"{check['status'].upper():7} {check['group']}: {check['name']}{number}{note}"


def calculator_of(text: str) -> Any:
    """A calculator from "module:Class"; raises SdasError."""
    import importlib

    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise SdasError(
            f"--reference {text}: wanted is module:Class of a calculator that is installed: {error}"
        ) from None
