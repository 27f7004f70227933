"""`sdas report`: the page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a run, evaluated, or of 'sdas active'.")],
) -> None:
    """Write report.html, one page that needs nothing else, and report.json into a run directory.

    A run of sdas scale gets scaling.html beside it, about what grew and why, also while it goes on.
    """
    from sdas.report import write_report
    from sdas.report.active import write_active_report
    from sdas.report.page import NUMBERS
    from sdas.report.scaling import write_scaling_page
    from sdas.run.folder import ACTS, LEDGER, SUMMARY
    from sdas.run.lock import locked

    if (run_dir / ACTS).exists():
        with locked(run_dir):
            typer.echo(f"written: {write_active_report(run_dir)}")
        return
    if (run_dir / LEDGER).exists():
        typer.echo(f"written: {write_scaling_page(run_dir)}")
        if not (run_dir / SUMMARY).exists():
            return
    page = write_report(run_dir)
    for note in json.loads((run_dir / NUMBERS).read_text())["notes"]:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"written: {page}")
