"""evaluation.json and predictions.npz: what `sdas evaluate` leaves, and the report reads."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdas.data.errors import DataError
from sdas.data.readers.npz_stream import NpzStream
from sdas.documents import read_json, read_older_document, write_document
from sdas.errors import SdasError
from sdas.evaluate.evaluation import Evaluation
from sdas.files import file_sha256, write_atomically
from sdas.run.fingerprint import joined

SUMMARY, PREDICTIONS = "evaluation.json", "predictions.npz"
ARRAYS = ("numbers", "offsets", "energies", "reference_energies", "forces", "reference_forces")
STRESS_ARRAYS = ("stresses", "reference_stresses")


def check_place(folder: str | os.PathLike[str]) -> None:
    """Raise SdasError if an evaluation in `folder` would replace files of the same names that are of others."""
    place = Path(folder)
    for name, is_ours in ((SUMMARY, _is_summary), (PREDICTIONS, _are_predictions)):
        if (place / name).exists() and not is_ours(place / name):
            raise SdasError(f"{place / name} is not of an evaluation, and would be replaced: choose another --out")


def save_evaluation(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    *,
    data_fingerprints: Mapping[str, str] | None = None,
    **facts: Any,
) -> Path:
    """Write both files to `folder` and return the path of the summary.

    `facts` (where the model and the data came from) go into the summary, and `data_fingerprints` of the files of the
    data by path. Each file appears complete or not at all; the summary is written last, and names the predictions that
    it belongs to by their hash. Raises SdasError as `check_place`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    check_place(target)
    names = ARRAYS + (STRESS_ARRAYS if evaluation.stresses is not None else ())
    arrays: dict[str, Any] = {name: getattr(evaluation, name) for name in names}
    data = dict(data_fingerprints or {})
    arrays |= {"model_fingerprint": evaluation.model_fingerprint or "", "data_fingerprint": joined(data)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    write_atomically(target / PREDICTIONS, lambda file: file.write(content))
    origin = {"data_fingerprints": data, "predictions_sha256": hashlib.sha256(content).hexdigest()}
    write_document(target / SUMMARY, {**facts, **origin, **evaluation.summary()})
    return target / SUMMARY


def load_evaluation(folder: str | os.PathLike[str]) -> tuple[Evaluation, dict[str, Any]]:
    """The evaluation in `folder` and its facts; raises SdasError if it is missing or damaged."""
    source = Path(folder)
    for name in (SUMMARY, PREDICTIONS):
        if not (source / name).exists():
            raise SdasError(f"{source}: no evaluation here ({name} is missing): run sdas evaluate")
    try:
        facts = read_older_document(source / SUMMARY, advice="run sdas evaluate again")
        with NpzStream(source / PREDICTIONS) as stored:
            arrays: dict[str, Any] = {name: stored.array(name) for name in ARRAYS}
            arrays.update({name: stored.array(name) if name in stored.names else None for name in STRESS_ARRAYS})
        wall_s, by_element = facts.pop("wall_s"), facts.pop("by_element")
        groups = {name: facts.pop(name, {}) for name in ("by_config_type", "by_file")}
        counts = facts.pop("n_frames"), facts.pop("n_atoms")
    except (DataError, KeyError, OSError) as error:
        raise SdasError(f"{source}: damaged evaluation ({error}): run sdas evaluate again") from error
    sha256 = facts.pop("predictions_sha256", None)
    if counts != (len(arrays["energies"]), len(arrays["numbers"])) or (
        sha256 is not None and sha256 != file_sha256(source / PREDICTIONS)
    ):
        raise SdasError(f"{source}: {SUMMARY} and {PREDICTIONS} are of different runs: run sdas evaluate again")
    model = facts.pop("model_fingerprint", None)
    metrics = {key: facts.pop(key) for key in list(facts) if key.startswith(("energy_", "force_", "stress_"))}
    facts_of_it = {"by_element": by_element, **groups, "wall_s": wall_s, "model_fingerprint": model}
    return Evaluation(metrics=metrics, **facts_of_it, **arrays), facts


def _is_summary(path: Path) -> bool:
    """Whether a file may be a summary of ours, a damaged one perhaps."""
    try:
        return "by_element" in read_json(path)
    except SdasError:
        return True


def _are_predictions(path: Path) -> bool:
    """Whether a file may hold predictions of ours, damaged ones perhaps."""
    try:
        with NpzStream(path) as stored:
            return set(ARRAYS) <= stored.names
    except (DataError, OSError):
        return path.with_name(SUMMARY).exists()
