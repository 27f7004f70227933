"""The sections of a report, each read from what one command left in a run directory: train, evaluate, md."""

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
from sdas.md.replica_run import SUMMARY as REPLICAS_SUMMARY
from sdas.run.checkpoint import read_model_document
from sdas.run.fingerprint import SHOWN, data_fingerprint, model_fingerprint
from sdas.run.folder import CONFIG, DIFFUSION, DYNAMICS, FREE_ENERGY, MODEL, REPLICAS, SUMMARY
from sdas.run.model import load_run_model
from sdas.train.rows import read_rows

RESULTS = {
    "replicas": (f"{REPLICAS}/{REPLICAS_SUMMARY}", "The run of replicas", "md", " with --replicas and --fresh"),
    "diffusion": (f"{DIFFUSION}/diffusion.json", "The diffusion constant", "diffusion", ""),
    "free_energy": (f"{FREE_ENERGY}/free_energy.json", "The free energy", "free-energy", " with --fresh"),
}
"""By the field of a run's contents: the file, what it is of, and how to get it again."""


@dataclass(frozen=True)
class Training:
    """config: text of config.yaml. model_fingerprint: None if there is no model. summary: of the training that made the
    model. metrics: columns of metrics.csv until then, NaN where a cell is empty."""

    config: str
    model_fingerprint: str | None
    summary: dict[str, Any]
    metrics: dict[str, np.ndarray]


@dataclass(frozen=True)
class TestErrors:
    """evaluation: of the test frames, None if of another model or other data. facts: where model and data came from."""

    evaluation: Evaluation | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Dynamics:
    """log: columns of log.csv. summary: of md.json."""

    log: dict[str, np.ndarray]
    summary: dict[str, Any]


@dataclass(frozen=True)
class RunContents:
    """A run directory, as far as it is of one model: the one in it.

    dynamics: None where there are none of this model. replicas, diffusion, free_energy: what sdas md of many replicas,
    sdas diffusion and sdas free-energy wrote of it, or None.
    notes: what was left out or is not known, a sentence each.
    """

    folder: Path
    training: Training
    test: TestErrors
    dynamics: Dynamics | None
    replicas: dict[str, Any] | None
    diffusion: dict[str, Any] | None
    free_energy: dict[str, Any] | None
    notes: list[str]


def read_run(folder: str | Path) -> RunContents:
    """Read a run directory; raises SdasError if a file that the report needs is missing or damaged."""
    source, notes = Path(folder), list[str]()
    training = read_training(source, notes)
    test = read_evaluation(source, training.model_fingerprint, notes)
    dynamics = read_dynamics(source, training.model_fingerprint, notes)
    further = {name: _read_result(source, name, training.model_fingerprint, notes) for name in RESULTS}
    return RunContents(source, training, test, dynamics, **further, notes=notes)


def read_training(folder: Path, notes: list[str]) -> Training:
    """What training left in the run directory ``folder``; raises SdasError without summary.json."""
    if not (folder / CONFIG).is_file():
        raise SdasError(f"{folder} is no run directory ({CONFIG} is missing)")
    summary = read_document(folder / SUMMARY, advice=f"sdas train --resume {as_argument(folder)} writes it")
    made, model = summary, None
    recover(folder / MODEL)
    if (folder / MODEL).is_dir():
        made = read_model_document(folder / MODEL)["extra"].get("training", summary)
        model = model_fingerprint(load_run_model(folder))
    if made.get("steps") != summary.get("steps"):
        notes.append(
            f"The model is that of step {made.get('steps')}. The training went on to step {summary.get('steps')} "
            f"without a new one; the numbers here are those of the model. sdas train --resume {as_argument(folder)} "
            "goes on."
        )
    return Training(_read_text(folder / CONFIG), model, made, _read_columns(folder, made.get("steps")))


def read_evaluation(folder: Path, model: str | None, notes: list[str]) -> TestErrors:
    """What `sdas evaluate` left in ``folder``, if it is of ``model``; raises SdasError if it left nothing."""
    found, facts = load_evaluation(folder)
    again = f"run {evaluate_command(folder, facts)} again"
    ours = _is_of(model, found.model_fingerprint, "The evaluation", again, notes)
    kept = ours and not _data_changed(facts, again, notes)
    return TestErrors(found if kept else None, facts)


def read_dynamics(folder: Path, model: str | None, notes: list[str]) -> Dynamics | None:
    """A finished run of dynamics by ``model`` in the run directory ``folder``, or None.

    Of a run that was lengthened since then, the part up to its end then.
    """
    place = folder / DYNAMICS
    if not (place / DYNAMICS_SUMMARY).exists():
        return None
    summary = read_older_document(place / DYNAMICS_SUMMARY, advice="run sdas md again")
    if not {"steps", "n_atoms", "ensemble"} <= set(summary):
        raise SdasError(
            f"{place / DYNAMICS_SUMMARY}: damaged: it says no steps, n_atoms or ensemble: run sdas md again"
        )
    try:
        log = read_log(place)
    except (OSError, ValueError) as error:
        raise SdasError(f"{place / LOG}: cannot be read: {error}") from error
    again = f"run sdas md {as_argument(folder)} again with --fresh"
    if not _is_of(model, summary.get("model"), "The run of dynamics", again, notes):
        return None
    kept = log["step"] <= summary["steps"]
    return Dynamics({name: column[kept] for name, column in log.items()}, summary)


def _read_result(folder: Path, name: str, model: str | None, notes: list[str]) -> dict[str, Any] | None:
    """What a command of `RESULTS` left in the run directory ``folder``, if it is of ``model``, or None."""
    place, what, command, options = RESULTS[name]
    if not (folder / place).exists():
        return None
    document = read_document(folder / place, advice=f"run sdas {command} again")
    again = f"run sdas {command} {as_argument(folder)} again{options}"
    return document if _is_of(model, document.get("model"), what, again, notes) else None


def evaluate_command(folder: Path, facts: dict[str, Any]) -> str:
    """What to type to get the evaluation in a run directory again."""
    data = "".join(f" {as_argument(path)}" for path in facts.get("data_paths", []))
    return f"sdas evaluate {as_argument(folder)}{data}"


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
