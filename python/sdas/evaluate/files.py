"""evaluation.json and predictions.npz: what `sdas evaluate` leaves, and the report reads."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from sdas.errors import SdasError
from sdas.evaluate.evaluation import Evaluation

SUMMARY, PREDICTIONS = "evaluation.json", "predictions.npz"
ARRAYS = ("numbers", "offsets", "energies", "reference_energies", "forces", "reference_forces")
STRESS_ARRAYS = ("stresses", "reference_stresses")


def save_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str], **facts: Any) -> Path:
    """Write both files to `folder` and return the path of the summary.

    `facts` (where the model and the data came from) go into the summary. Each file appears complete or not at all;
    the summary is written last.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    names = ARRAYS + (STRESS_ARRAYS if evaluation.stresses is not None else ())
    arrays = {name: getattr(evaluation, name) for name in names}
    write_atomically(target / PREDICTIONS, lambda file: np.savez_compressed(file, **arrays))
    text = json.dumps({**facts, **evaluation.summary()}, indent=2)
    write_atomically(target / SUMMARY, lambda file: file.write(text.encode() + b"\n"))
    return target / SUMMARY


def load_evaluation(folder: str | os.PathLike[str]) -> tuple[Evaluation, dict[str, Any]]:
    """The evaluation in `folder` and its facts; raises SdasError if it is missing or damaged."""
    source = Path(folder)
    try:
        facts = json.loads((source / SUMMARY).read_text())
        with np.load(source / PREDICTIONS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAYS}
            arrays.update({name: stored.get(name) for name in STRESS_ARRAYS})
        wall_s, by_element = facts.pop("wall_s"), facts.pop("by_element")
        counts = facts.pop("n_frames"), facts.pop("n_atoms")
    except FileNotFoundError as error:
        raise SdasError(f"{source}: no evaluation here ({error.filename} is missing): run sdas evaluate") from error
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise SdasError(f"{source}: damaged evaluation ({error}): run sdas evaluate again") from error
    if counts != (len(arrays["energies"]), len(arrays["numbers"])):
        raise SdasError(f"{source}: {SUMMARY} and {PREDICTIONS} are of different runs: run sdas evaluate again")
    metrics = {key: facts.pop(key) for key in list(facts) if key.startswith(("energy_", "force_", "stress_"))}
    return Evaluation(metrics=metrics, by_element=by_element, wall_s=wall_s, **arrays), facts


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call `write` with a binary file that becomes `path` once it is complete and on disk."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
