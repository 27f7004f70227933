"""A member of an ensemble: trained in its folder, and asked what it says of the frames that it is given.

``python -m sdas.active.member FOLDER`` does so in a process of its own. Everything that it needs lies in the folder,
and what it makes is left there, so it can be done again, elsewhere, and after it was killed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from sdas.active.folder import TASK
from sdas.config import Config, load_config, render_config
from sdas.data import Frame, FrameCache
from sdas.documents import read_document, write_document
from sdas.errors import ActiveError, SdasError, describe
from sdas.files import write_atomically, write_text
from sdas.predict import Prediction, frame_features, predict_batches
from sdas.run.folder import CONFIG, SUMMARY
from sdas.run.model import load_run_model, species_of
from sdas.train.loop import finish
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData

FRAMES_PER_CALL = 32


@dataclass(frozen=True)
class Asked:
    """Frames that a member predicts: some of a cache, whose place is relative to the run, by index."""

    name: str
    cache: str
    indices: list[int]


@dataclass(frozen=True)
class Task:
    """What a member has to do. run: the folder of the run, relative to the member's, as origin, whose model it goes on
    from, and frames, the cache that it trains on, are to that of the run. train, validation: indices in it."""

    run: str
    frames: str
    train: list[int]
    validation: list[int]
    origin: str | None
    asked: list[Asked]


def write_task(folder: Path, task: Task, config: Config) -> None:
    """Put into ``folder`` what :func:`train_member` needs; ``config.run_dir`` is to be that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, render_config(config))
    write_document(folder / TASK, asdict(task))


def train_member(folder: Path) -> int | None:
    """Train as the folder says, go on where it has begun, and predict. Gives the signal that asked it to stop, or None.

    Raises :class:`sdas.errors.SdasError` as training does, and :class:`ActiveError` where the folder is not there.
    """
    if not folder.is_dir():
        raise ActiveError(f"{folder}: not there on this machine; all machines must share the file system of the run")
    content = read_document(folder / TASK, ActiveError)
    task = Task(**{**content, "asked": [Asked(**each) for each in content["asked"]]})
    config = load_config(folder / CONFIG, values={"run_dir": str(folder)})
    run = (folder / task.run).resolve()
    if not _is_trained(folder):
        stopped = _train(config, task, run)
        if stopped is not None:
            return stopped
    model = load_run_model(folder)
    for each in task.asked:
        if not prediction_path(folder, each.name).exists():
            _write_prediction(
                model, FrameCache.open(run / each.cache), each.indices, prediction_path(folder, each.name)
            )
    return None


def _is_trained(folder: Path) -> bool:
    return (folder / SUMMARY).exists() and read_document(folder / SUMMARY)["status"] == "complete"


def _train(config: Config, task: Task, run: Path) -> int | None:
    cache = FrameCache.open(run / task.frames)
    data = TrainingData(cache, np.array(task.train, dtype=np.int64), np.array(task.validation, dtype=np.int64))
    with Processes(config.train.device) as processes, Session(config, data, processes) as session:
        if task.origin is not None and session.progress.step == 0:
            session.use_model(load_run_model(run / task.origin))
        done = session.advance(session.end)
        if done:
            session.validate()
            session.save()
        finish(session, done, {})
        return None if done else session.interrupted


def prediction_path(folder: Path, name: str) -> Path:
    """Where a member leaves its predictions."""
    return folder / f"{name}.npz"


def _write_prediction(model: torch.nn.Module, cache: FrameCache, indices: Sequence[int], path: Path) -> None:
    energies, forces, features = [], [], []
    species = species_of(model)
    frames: Sequence[Frame] = [cache[index] for index in indices]
    for batch, found in predict_batches(model, frames, FRAMES_PER_CALL, features=True):
        energies.append(found.energy)
        forces.append(found.forces)
        features.append(frame_features(found, batch, species))
    arrays: dict[str, Any] = {
        "energy": np.concatenate([*energies, np.zeros(0)]),
        "forces": np.concatenate([*forces, np.zeros((0, 3))]),
        "features": np.concatenate(features) if features else np.zeros((0, 0)),
    }
    write_atomically(path, lambda file: np.savez(file, **arrays))


def read_prediction(folder: Path, name: str) -> tuple[Prediction, np.ndarray]:
    """What a member said of frames, and their features by :func:`sdas.predict.frame_features`."""
    with np.load(prediction_path(folder, name)) as stored:
        return Prediction(stored["energy"], stored["forces"]), stored["features"]


def _end_with_parent() -> None:
    """End this process when whoever started it is gone: the pipe on standard input is closed then."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: str) -> int:
    """The exit status: 0 when all is done, 128 + signal if interrupted, 1 for an error, told on standard error."""
    _end_with_parent()
    try:
        stopped = train_member(Path(folder))
    except (SdasError, OSError) as error:
        typer.echo(f"error: {describe(error)}", err=True)
        return 1
    return 0 if stopped is None else 128 + stopped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
