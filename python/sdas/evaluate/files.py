"""evaluation.json and predictions.npz: what `sdas evaluate` leaves, and the report reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sdas.errors import SdasError
from sdas.evaluate.evaluation import Evaluation
from sdas.files import write_atomically, write_text

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
    write_text(target / SUMMARY, json.dumps({**facts, **evaluation.summary()}, indent=2) + "\n")
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
