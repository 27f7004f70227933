"""Find the model that a user means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sdas.errors import SdasError
from sdas.files import as_argument, recover
from sdas.run.checkpoint import load_model
from sdas.run.device import find_device
from sdas.run.folder import CHECKPOINTS, MODEL

DOCUMENT = "model.json"


def load_run_model(path: str | Path, device: torch.device | str | None = None) -> torch.nn.Module:
    """The model in a run directory, or in a model directory itself; on the CPU unless `device` says else.

    Raises SdasError if there is neither, CheckpointError if the model cannot be read.
    """
    folder = Path(path)
    for candidate in (folder, folder / MODEL):
        recover(candidate)
        if (candidate / DOCUMENT).is_file():
            return load_model(candidate, find_device(device or "cpu"))
    if (folder / CHECKPOINTS).is_dir() and not (folder / MODEL).exists():
        resume = f"sdas train --resume {as_argument(folder)}"
        raise SdasError(
            f"{folder}: the run has no model yet, which it writes at its end: go on with '{resume}', or end it where "
            f"it is with '{resume} --set train.steps=1'"
        )
    raise SdasError(f"{folder}: neither a run directory with a model nor a model directory ({DOCUMENT} is missing)")


def results_folder(path: str | Path) -> Path:
    """Where results of a model lie if nobody says: in its run directory.

    Raises SdasError for a model directory, since saving the model again replaces it with all that lies there.
    """
    folder = Path(path)
    if (folder / DOCUMENT).is_file():
        raise SdasError(f"{folder} is a model directory, which holds the model alone: name a folder with --out")
    return folder


def species_of(model: Any) -> list[int]:
    """Sorted atomic numbers that a model knows."""
    return sorted(int(number) for number in model.species)
