"""Everything that a run directory holds, read once."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.evaluate import Evaluation, load_evaluation
from sdas.files import as_argument
from sdas.md.folder import LOG, SUMMARY, read_log

MD_FOLDER = "md"


@dataclass(frozen=True)
class RunContents:
    """A run directory.

    config: text of config.yaml. summary: summary.json. metrics: columns of metrics.csv, NaN where a cell is empty.
    evaluation, evaluation_facts: of the test frames. md_log, md_summary: of the run in md/, or None.
    """

    folder: Path
    config: str
    summary: dict[str, Any]
    metrics: dict[str, np.ndarray]
    evaluation: Evaluation
    evaluation_facts: dict[str, Any]
    md_log: dict[str, np.ndarray] | None
    md_summary: dict[str, Any] | None


def read_run(folder: str | Path) -> RunContents:
    """Read a run directory; raises SdasError if a file that the report needs is missing or damaged."""
    source = Path(folder)
    evaluation, facts = load_evaluation(source)
    summary = read_document(source / "summary.json", advice=f"sdas train --resume {as_argument(source)} writes it")
    md_summary = md_log = None
    if (source / MD_FOLDER / SUMMARY).exists():
        md_summary = _read_json(source / MD_FOLDER / SUMMARY, "run sdas md again")
        try:
            md_log = read_log(source / MD_FOLDER)
        except (OSError, ValueError) as error:
            raise SdasError(f"{source / MD_FOLDER / LOG}: cannot be read ({error})") from error
    config = source / "config.yaml"
    return RunContents(
        folder=source,
        config=config.read_text() if config.exists() else "",
        summary=summary,
        metrics=_read_columns(source / "metrics.csv"),
        evaluation=evaluation,
        evaluation_facts=facts,
        md_log=md_log,
        md_summary=md_summary,
    )


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise SdasError(f"{path} is missing: {advice}") from error
    except ValueError as error:
        raise SdasError(f"{path}: damaged ({error})") from error


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    try:
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except (ValueError, TypeError) as error:
        raise SdasError(f"{path}: damaged ({error})") from error
