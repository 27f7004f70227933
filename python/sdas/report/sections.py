"""Everything that a run directory holds, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdas.documents import read_document, read_older_document
from sdas.errors import SdasError
from sdas.evaluate import Evaluation, load_evaluation
from sdas.files import as_argument, recover
from sdas.md.folder import LOG, read_log
from sdas.md.folder import SUMMARY as DYNAMICS_SUMMARY
from sdas.run.checkpoint import read_model_document
from sdas.run.fingerprint import SHOWN, data_fingerprint, model_fingerprint
from sdas.run.folder import CONFIG, DYNAMICS, MODEL, SUMMARY
from sdas.run.model import load_run_model
from sdas.train.rows import read_rows


@dataclass(frozen=True)
class RunContents:
    """A run directory, as far as it is of one model: the one in it.

    model_fingerprint: None if there is no model. config: text of config.yaml. training: the summary of the training
    that made the model. metrics: columns of metrics.csv until then, NaN where a cell is empty. evaluation: of the test
    frames, None if of another model or other data. evaluation_facts: where its model and data came from. md_log,
    md_summary: of the run in md/, or None. notes: what was left out or is not known, a sentence each.
    """

    folder: Path
    model_fingerprint: str | None
    config: str
    training: dict[str, Any]
    metrics: dict[str, np.ndarray]
    evaluation: Evaluation | None
    evaluation_facts: dict[str, Any]
    md_log: dict[str, np.ndarray] | None
    md_summary: dict[str, Any] | None
    notes: list[str]


def read_run(folder: str | Path) -> RunContents:
    """Read a run directory; raises SdasError if a file that the report needs is missing or damaged."""
    source, notes = Path(folder), list[str]()
    found, facts = load_evaluation(source)
    model, training = _model_and_training(source, notes)
    evaluation: Evaluation | None = found
    again = f"run {evaluate_command(source, facts)} again"
    if not _is_of(model, found.model_fingerprint, "The evaluation", again, notes) or _data_changed(facts, again, notes):
        evaluation = None
    md_log, md_summary = _dynamics(source / DYNAMICS)
    again = f"run sdas md {as_argument(source)} again with --fresh"
    if md_summary is not None and not _is_of(model, md_summary.get("model"), "The run of dynamics", again, notes):
        md_log = md_summary = None
    return RunContents(
        folder=source,
        model_fingerprint=model,
        config=_read_text(source / CONFIG),
        training=training,
        metrics=_read_columns(source, training.get("steps")),
        evaluation=evaluation,
        evaluation_facts=facts,
        md_log=md_log,
        md_summary=md_summary,
        notes=notes,
    )


def evaluate_command(folder: Path, facts: dict[str, Any]) -> str:
    """What to type to get the evaluation in a run directory again."""
    data = "".join(f" --data {as_argument(path)}" for path in facts.get("data_paths", []))
    return f"sdas evaluate {as_argument(folder)}{data}"


def _model_and_training(source: Path, notes: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The fingerprint of the model in a run directory, and the summary of the training that made it."""
    summary = read_document(source / SUMMARY, advice=f"sdas train --resume {as_argument(source)} writes it")
    recover(source / MODEL)
    if not (source / MODEL).is_dir():
        return None, summary
    training = read_model_document(source / MODEL)["extra"].get("training", summary)
    if training.get("steps") != summary.get("steps"):
        notes.append(
            f"The model is that of step {training.get('steps')}. The training went on to step {summary.get('steps')} "
            f"without a new one; the numbers here are those of the model. sdas train --resume {as_argument(source)} "
            "goes on."
        )
    return model_fingerprint(load_run_model(source)), training


def _is_of(model: str | None, other: str | None, what: str, again: str, notes: list[str]) -> bool:
    """Whether something may be of the model; if it is not, or that is not known, a note says so."""
    if other is None:
        notes.append(
            f"{what} was written by an earlier version, which did not note the model: it may be of another than the "
            f"run's. To know, {again}."
        )
    elif model is None:
        notes.append(f"{what} is of the model {other[:SHOWN]}…; the run has none to compare with.")
    elif other != model:
        notes.append(
            f"{what} is of another model ({other[:SHOWN]}…) than the run's ({model[:SHOWN]}…), and left out: {again}."
        )
        return False
    return True


def _data_changed(facts: dict[str, Any], again: str, notes: list[str]) -> bool:
    """Whether the data of an evaluation are others by now. Data that are not there any more are not compared."""
    for path, fingerprint in facts.get("data_fingerprints", {}).items():
        try:
            changed = Path(path).exists() and data_fingerprint(path) != fingerprint
        except SdasError:  # a cache that is damaged by now
            changed = True
        if changed:
            notes.append(f"{path} changed since the evaluation was made of it, which is left out: {again}.")
            return True
    return False


def _dynamics(folder: Path) -> tuple[dict[str, np.ndarray] | None, dict[str, Any] | None]:
    """Log and summary of a finished run of dynamics; a run that was lengthened since then, up to its end then."""
    if not (folder / DYNAMICS_SUMMARY).exists():
        return None, None
    summary = read_older_document(folder / DYNAMICS_SUMMARY, advice="run sdas md again")
    if not {"steps", "n_atoms", "ensemble"} <= set(summary):
        raise SdasError(
            f"{folder / DYNAMICS_SUMMARY}: damaged: it says no steps, n_atoms or ensemble: run sdas md again"
        )
    try:
        log = read_log(folder)
    except (OSError, ValueError) as error:
        raise SdasError(f"{folder / LOG}: cannot be read: {error}") from error
    kept = log["step"] <= summary["steps"]
    return {name: column[kept] for name, column in log.items()}, summary


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SdasError(f"{path}: cannot be read: {error}") from None


def _read_columns(folder: Path, last_step: int | None) -> dict[str, np.ndarray]:
    """Columns of metrics.csv up to a step."""
    rows = read_rows(folder)
    if last_step is not None:
        rows = [row for row in rows if int(row["step"]) <= last_step]
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
