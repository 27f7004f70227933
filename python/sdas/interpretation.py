"""``sdas interpret``: what a model looks at, and the page about it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config.reading_flags import takes_reading_options
from sdas.errors import SdasError


@takes_reading_options
def interpret(
    model: Annotated[Path, typer.Argument(help="Run directory or model directory.")],
    data: Annotated[Path, typer.Option(help="Frames to look at, a file or a cache; labels are used if there are any.")],
    given: dict[str, Any],
    frames: Annotated[int, typer.Option(help="How many frames of the file, from its beginning.")] = 100,
    torsion: Annotated[
        str | None,
        typer.Option(help="Atoms of the reaction coordinate, as 0,1,2,3; by default a torsion of heavy atoms."),
    ] = None,
    transfer: Annotated[
        str | None,
        typer.Option(help="Atoms of the reaction coordinate instead, as 0,8,4: atom 8 goes over from 0 to 4."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many models of random weights stand beside it.")] = 19,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; by default interpret in the run's.")] = None,
) -> None:
    """Attention, contributions of parts, and features along a torsion, each beside controls that learned nothing.

    Writes interpret.json and interpret.html, a page that needs nothing else.
    """
    from sdas.documents import write_document
    from sdas.evaluate.labelled_frames import frames_of_files
    from sdas.interpret import interpret as run
    from sdas.report.interpretation import write_interpretation
    from sdas.run.folder import INTERPRETATION, INTERPRETATION_NUMBERS
    from sdas.run.lock import locked
    from sdas.run.model import load_run_model, results_folder

    if frames < 1 or seeds < 1:
        raise SdasError(f"--frames and --seeds must be at least 1, got {frames} and {seeds}")
    turned = None if torsion is None else atoms_of("--torsion", torsion, "0,1,2,3")
    moved = None if transfer is None else atoms_of("--transfer", transfer, "0,8,4")
    potential = load_run_model(model)
    folder = out or results_folder(model) / INTERPRETATION
    labelled = frames_of_files(model, [str(data)], given)
    chosen = list(islice(labelled.frames, frames))
    if not chosen:
        raise SdasError(f"{data}: there are no frames")
    with locked(folder):
        found = run(potential, chosen, seeds=range(1, seeds + 1), torsion=turned, transfer=moved)
        content = {"model": str(model), "data": str(data), "data_fingerprints": labelled.fingerprints, **found}
        write_document(folder / INTERPRETATION_NUMBERS, content)
        page = write_interpretation(folder)
    for line in [*found["findings"], *found["notes"]]:
        typer.echo(line)
    typer.echo(f"written: {page}")


def atoms_of(option: str, text: str, example: str) -> list[int]:
    """Indices as in the example; raises SdasError."""
    try:
        atoms = [int(part) for part in text.split(",")]
    except ValueError:
        atoms = []
    wanted = len(example.split(","))
    if len(atoms) != wanted:
        raise SdasError(f"{option} must be {wanted} atoms, as {example}, got {text!r}")
    return atoms
