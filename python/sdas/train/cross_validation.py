"""The weights of the loss by k-fold cross-validation over the training frames, with short runs."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config import Config, render_config
from sdas.errors import TrainingError
from sdas.files import write_text
from sdas.run.folder import SPLIT
from sdas.run.frames import converted_frames, open_data, say_which_frames
from sdas.run.lock import locked
from sdas.run.start import start_run
from sdas.train.loop import fit
from sdas.train.objective import check_elements
from sdas.train.processes import Processes

TABLE, CHOSEN = "cross_validation.csv", "chosen.yaml"


@dataclass(frozen=True)
class CrossValidation:
    """rows: one per pair of weights, with mean errors over the folds and their score. chosen: the best row."""

    rows: list[dict[str, Any]]
    chosen: dict[str, Any]
    config_path: Path

    def text(self) -> str:
        """The rows as a table."""
        head = list(self.rows[0])
        cells = [head, *([f"{row[name]:.4g}" for name in head] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        return "\n".join("  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells)


def cross_validate(config: Config) -> CrossValidation:
    """Train every pair of ``cross_validation.lambda_energy`` and ``lambda_forces`` on every fold, and choose.

    Folds are parts of the training frames; validation and test frames are not touched. The score of a pair is the
    mean force MAE, the mean energy MAE, or with criterion ``both`` the geometric mean of the two: a change of weights
    that gains 1 % on one and loses 1 % on the other is no change. Writes ``cross_validation.csv`` and ``chosen.yaml``,
    the configuration with the chosen weights, to run_dir; the short runs lie in run_dir/folds.
    """
    folder = Path(config.run_dir)
    with Processes(config.train.device) as processes:
        if processes.size > 1:
            raise TrainingError("cross-validation runs in one process; start it without torchrun")
        with locked(folder):
            rows = _train_all(config, folder, processes)
            chosen = min(rows, key=lambda row: row["score"])
            best = config.model_copy(deep=True)
            best.train.lambda_energy, best.train.lambda_forces = chosen["lambda_energy"], chosen["lambda_forces"]
            best.run_dir = f"{config.run_dir}-chosen"
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(folder / TABLE, text.getvalue())
            write_text(folder / CHOSEN, render_config(best))
    return CrossValidation(rows, chosen, folder / CHOSEN)


def _train_all(config: Config, folder: Path, processes: Processes) -> list[dict[str, Any]]:
    """A row for each pair of weights."""
    options = config.cross_validation
    start_run(config)
    with converted_frames(config.data, folder):
        cache, split = open_data(config.data, folder)
        split.save(folder / SPLIT)
        say_which_frames(cache, split)
        if len(split.train) < options.folds:
            raise TrainingError(f"{options.folds} folds of {len(split.train)} training frames")
        check_elements(config, cache, split.train, {"validation": split.validation, "test": split.test})
        order = np.random.default_rng(config.train.seed).permutation(split.train)
        folds = [np.sort(fold) for fold in np.array_split(order, options.folds)]
        for k, fold in enumerate(folds):
            check_elements(config, cache, _other_folds(folds, k), {f"fold {k}'s": fold})
    rows = []
    for energy, forces in product(options.lambda_energy, options.lambda_forces):
        errors = []
        for k, fold in enumerate(folds):
            run = _short_run(config, folder / "folds" / f"energy-{energy:g}-forces-{forces:g}-{k}", energy, forces)
            errors.append(fit(run, cache, _other_folds(folds, k), fold, processes).summary["last_validation"])
        rows.append(_row(energy, forces, errors, options.criterion))
    return rows


def _other_folds(folds: list[NDArray[np.int64]], k: int) -> NDArray[np.int64]:
    return np.sort(np.concatenate([other for j, other in enumerate(folds) if j != k]))


def _short_run(config: Config, folder: Path, lambda_energy: float, lambda_forces: float) -> Config:
    run = config.model_copy(deep=True)
    run.run_dir = str(folder)
    steps = config.cross_validation.steps
    run.train = run.train.model_copy(
        update={
            "steps": steps,
            "minutes": None,
            "validate_every": steps,
            "checkpoint_every": steps,
            "lambda_energy": lambda_energy,
            "lambda_forces": lambda_forces,
        }
    )
    return run


def _row(energy: float, forces: float, errors: list[dict[str, float]], criterion: str) -> dict[str, Any]:
    by_energy = [fold["energy_mae_mev"] for fold in errors]
    by_forces = [fold["force_mae_mev_per_ang"] for fold in errors]
    means = {"energy": float(np.mean(by_energy)), "forces": float(np.mean(by_forces))}
    means["both"] = math.sqrt(means["energy"] * means["forces"])
    return {
        "lambda_energy": energy,
        "lambda_forces": forces,
        "energy_mae_mev": means["energy"],
        "energy_mae_mev_std": float(np.std(by_energy)),
        "force_mae_mev_per_ang": means["forces"],
        "force_mae_mev_per_ang_std": float(np.std(by_forces)),
        "score": means[criterion],
    }
