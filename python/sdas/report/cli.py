"""`sdas report`: the page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a run, evaluated, or of 'sdas active'.")],
) -> None:
    """Write report.html, one page that needs nothing else, and report.json into a run directory."""
    from sdas.report import write_report
    from sdas.report.active import write_active_report
    from sdas.report.page import NUMBERS
    from sdas.run.folder import ACTS
    from sdas.run.lock import locked

    if (run_dir / ACTS).exists():
        with locked(run_dir):
            typer.echo(f"written: {write_active_report(run_dir)}")
        return
    page = write_report(run_dir)
    for note in json.loads((run_dir / NUMBERS).read_text())["notes"]:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"written: {page}")
