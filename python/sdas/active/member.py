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
import typer

from sdas.active.folder import TASK
from sdas.config import Config, load_config, render_config
from sdas.config.active import Source
from sdas.data import Frame, FrameCache
from sdas.documents import read_document, write_document
from sdas.errors import ActiveError, SdasError, describe
from sdas.files import write_atomically, write_text
from sdas.predict import Prediction, frame_features, gradient_features, predict_batches
from sdas.predict.prediction import FloatArray
from sdas.run.folder import CONFIG, SUMMARY
from sdas.run.model import load_run_model, species_of
from sdas.scaling.loop import scale_on
from sdas.scaling.pool import Pool
from sdas.train.loop import finish
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas_kernels.nn import SDAS, members, thinned

FRAMES_PER_CALL = 32


@dataclass(frozen=True)
class Asked:
    """Frames that a member predicts: some of a cache, whose place is relative to the run, by index.

    drawn: whether models drawn from the member predict too. gradients: whether gradients of the energy are asked for,
    as features.
    """

    name: str
    cache: str
    indices: list[int]
    drawn: bool = True
    gradients: bool = False


@dataclass(frozen=True)
class Task:
    """What a member has to do. run: the folder of the run, relative to the member's, as origin, whose model it goes on
    from, and frames, the cache that it trains on, are to that of the run. train, validation: indices in it.

    uncertainty: its source; by shallow its readouts predict beside it, by dropout so many draws of its hidden units.
    scaled: whether it grows by adaptive scaling."""

    run: str
    frames: str
    train: list[int]
    validation: list[int]
    origin: str | None
    asked: list[Asked]
    uncertainty: Source = "ensemble"
    draws: int = 0
    scaled: bool = False


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
    models: list[SDAS] = []
    for each in task.asked:
        path = prediction_path(folder, each.name)
        if not path.exists():
            models = models or [_model_of(folder), *drawn_models(folder, task.uncertainty, task.draws)]
            cache = FrameCache.open(run / each.cache)
            frames = [cache[index] for index in each.indices]
            _write_prediction(models if each.drawn else models[:1], frames, each.gradients, path)
    return None


def drawn_models(folder: Path, source: Source, draws: int) -> list[SDAS]:
    """What the model of a member is taken apart into by a source of uncertainty: readouts, draws, or nothing."""
    if source == "shallow":
        return members(_model_of(folder))
    if source != "dropout":
        return []
    model, train = _model_of(folder), load_config(folder / CONFIG).train
    return [thinned(model, train.dropout, train.seed + draw) for draw in range(draws)]


def _is_trained(folder: Path) -> bool:
    return (folder / SUMMARY).exists() and read_document(folder / SUMMARY)["status"] == "complete"


def _train(config: Config, task: Task, run: Path) -> int | None:
    cache = FrameCache.open(run / task.frames)
    known, validation = (np.array(part, dtype=np.int64) for part in (task.train, task.validation))
    if task.scaled:
        pool = Pool(cache, np.random.default_rng(config.train.seed).permutation(known), len(known), validation, 0)
        with Processes(config.train.device) as processes:
            return scale_on(config, pool, processes).signal
    data = TrainingData(cache, known, validation)
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


def _model_of(folder: Path) -> SDAS:
    model = load_run_model(folder)
    assert isinstance(model, SDAS)
    return model


def _write_prediction(models: Sequence[SDAS], frames: Sequence[Frame], gradients: bool, path: Path) -> None:
    """Of the first model with features, and of those drawn from it."""
    first, *drawn = models
    species, features, sketches = species_of(first), list[FloatArray](), list[FloatArray]()
    predictions = [list[Prediction]() for _ in models]
    for batch, found in predict_batches(first, frames, FRAMES_PER_CALL, features=True):
        predictions[0].append(found)
        features.append(frame_features(found, batch, species))
        if gradients:
            sketches.append(gradient_features(first, batch))
        for model, beside in zip(drawn, predictions[1:], strict=True):
            beside += [each for _, each in predict_batches(model, batch, FRAMES_PER_CALL)]
    arrays: dict[str, Any] = {
        "energy": np.stack([np.concatenate([*(each.energy for each in of), np.zeros(0)]) for of in predictions]),
        "forces": np.stack([np.concatenate([*(each.forces for each in of), np.zeros((0, 3))]) for of in predictions]),
        "features": np.concatenate(features) if features else np.zeros((0, 0)),
        "gradients": np.concatenate(sketches) if sketches else np.zeros((0, 0)),
    }
    write_atomically(path, lambda file: np.savez(file, **arrays))


@dataclass(frozen=True, eq=False)
class Said:
    """What a member said of frames.

    prediction: its own. drawn: those of the models drawn from it, none of an ensemble. features: of the frames, by
    :func:`sdas.predict.frame_features`. gradients: by :func:`sdas.predict.gradient_features`, where asked for.
    """

    prediction: Prediction
    drawn: list[Prediction]
    features: FloatArray
    gradients: FloatArray


def read_prediction(folder: Path, name: str) -> Said:
    """Read what :func:`train_member` left."""
    with np.load(prediction_path(folder, name)) as stored:
        first, *drawn = map(Prediction, stored["energy"], stored["forces"])
        return Said(first, drawn, stored["features"], stored["gradients"])


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
