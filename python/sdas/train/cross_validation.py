"""The weights of the loss by k-fold cross-validation over the training frames, with short runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config import Config, render_config
from sdas.data import FrameCache
from sdas.data.splits import Split
from sdas.errors import TrainingError
from sdas.files import as_argument, write_text
from sdas.run.folder import FOLDS
from sdas.train.loop import fit, opened_run
from sdas.train.objective import check_elements
from sdas.train.processes import Processes
from sdas.train.states import check_states

TABLE, CHOSEN = "cross_validation.csv", "chosen.yaml"
WEIGHTS = ("energy_weight", "forces_weight", "stress_weight")
CRITERIA = {
    "energy": "energy_mae_mev_per_atom",
    "forces": "force_mae_mev_per_ang",
    "stress": "stress_mae_mev_per_ang3",
}


@dataclass(frozen=True)
class CrossValidation:
    """rows: one for all three weights, with mean errors over the folds and their score. chosen: the best row."""

    rows: list[dict[str, Any]]
    chosen: dict[str, Any]
    config_path: Path

    def text(self) -> str:
        """The rows as a table."""
        head = list(self.rows[0])
        cells = [head, *([f"{row[name]:.4g}" for name in head] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        return "\n".join("  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells)


def cross_validate(config: Config, resume: bool = False) -> CrossValidation:
    """Train with every combination of the weights in ``cross_validation`` on every fold, and choose.

    Folds are parts of the training frames; validation and test frames are not touched. The score of a combination is
    the mean MAE of forces, of energies per atom or of stresses. With criterion ``all`` it is the geometric mean of
    those that there are: a change of weights that gains 1 % on one and loses 1 % on another is no change. Writes
    ``cross_validation.csv`` and ``chosen.yaml``, the configuration with the chosen weights, to run_dir; the short runs
    lie in run_dir/folds. With ``resume`` those that are there already are taken, or go on.
    """
    folder = Path(config.run_dir)
    with Processes(config.train.device) as processes:
        if processes.size > 1:
            raise TrainingError("cross-validation runs in one process; start it without torchrun")
        with opened_run(config, processes, resume) as (cache, split):
            rows = _train_all(config, cache, split, processes)
            chosen = min(rows, key=lambda row: row["score"])
            best = config.model_copy(deep=True)
            best.train = best.train.model_copy(update={name: chosen[name] for name in WEIGHTS})
            best.run_dir = f"{config.run_dir}-chosen"
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(folder / TABLE, text.getvalue())
            write_text(folder / CHOSEN, render_config(best))
    return CrossValidation(rows, chosen, folder / CHOSEN)


def _train_all(config: Config, cache: FrameCache, split: Split, processes: Processes) -> list[dict[str, Any]]:
    """A row for each combination of weights."""
    options = config.cross_validation
    if len(split.train) < options.folds:
        raise TrainingError(f"{options.folds} folds of {len(split.train)} training frames")
    parts = {"validation": split.validation, "test": split.test}
    check_elements(config, cache, split.train, parts)
    check_states(config, cache, split.train, parts)
    order = np.random.default_rng(config.train.seed).permutation(split.train)
    folds = [np.sort(fold) for fold in np.array_split(order, options.folds)]
    for k, fold in enumerate(folds):
        check_elements(config, cache, _other_folds(folds, k), {f"fold {k}'s": fold})
        check_states(config, cache, _other_folds(folds, k), {f"fold {k}'s": fold})
    rows = []
    for values in product(*(getattr(options, name) for name in WEIGHTS)):
        weights, errors = dict(zip(WEIGHTS, values, strict=True)), []
        name = "-".join(f"{name.removesuffix('_weight')}-{value:g}" for name, value in weights.items())
        for k, fold in enumerate(folds):
            run = _short_run(config, Path(config.run_dir) / FOLDS / f"{name}-{k}", weights)
            summary = fit(run, cache, _other_folds(folds, k), fold, processes).summary
            if summary["status"] == "interrupted":
                resume = f"sdas train --cross-validate --resume {as_argument(config.run_dir)}"
                raise TrainingError(f"stopped by signal {summary['signal']}; go on with '{resume}'")
            errors.append(summary["last_validation"])
        rows.append(_row(weights, errors, options.criterion))
    return rows


def _other_folds(folds: list[NDArray[np.int64]], k: int) -> NDArray[np.int64]:
    return np.sort(np.concatenate([other for j, other in enumerate(folds) if j != k]))


def _short_run(config: Config, folder: Path, weights: Mapping[str, float]) -> Config:
    run = config.model_copy(deep=True)
    run.run_dir = str(folder)
    steps = config.cross_validation.steps
    short = {"steps": steps, "minutes": None, "validate_every": steps, "checkpoint_every": steps}
    run.train = run.train.model_copy(update={**short, **weights})
    return run


def _row(weights: Mapping[str, float], errors: list[dict[str, float]], criterion: str) -> dict[str, Any]:
    """Weights, mean errors over the folds with their spread, and score. Only folds that have a label tell its error."""
    row, means = dict[str, Any](weights), dict[str, float]()
    for kind, name in CRITERIA.items():
        values = [fold[name] for fold in errors if name in fold]
        if values:
            means[kind] = row[name] = float(np.mean(values))
            row[f"{name}_std"] = float(np.std(values))
    if criterion != "all" and criterion not in means:
        raise TrainingError(f"cross_validation.criterion is {criterion}, but the training frames have no {criterion}")
    chosen = list(means.values()) if criterion == "all" else [means[criterion]]
    return {**row, "score": math.prod(chosen) ** (1 / len(chosen))}
