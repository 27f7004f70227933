"""A run of training in its folder, from the configuration to the model.

The loss stands in :mod:`sdas.train.loss`. The network works in its unit s, and an energy per species is fitted
beforehand (:mod:`sdas.train.energy_reference`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config import Config
from sdas.data import Frame, FrameCache
from sdas.data.splits import Split
from sdas.documents import write_document
from sdas.run.checkpoint import check_place, save_model, versions
from sdas.run.fingerprint import model_fingerprint
from sdas.run.folder import MODEL, SUMMARY
from sdas.run.frames import converted_frames, open_data, say_which_frames, warn_of_repeated
from sdas.run.lock import locked
from sdas.run.machine import describe_process
from sdas.run.start import check_resumed_by, find_run, forget_start, record_run, say_what_changed, start_run
from sdas.train.energy_reference import given_energies
from sdas.train.objective import check_elements, trained_labels
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.states import check_states


@dataclass(frozen=True)
class RunResult:
    """run_dir: where everything lies. summary: the content of summary.json; its "status" is complete or interrupted."""

    run_dir: Path
    summary: dict[str, Any]


def train(config: Config, resume: bool = False) -> RunResult:
    """Run a configuration, or with ``resume`` go on with the run in its run_dir.

    Raises :class:`sdas.errors.SdasError` for data, configurations, checkpoints and folders that cannot be used, and
    :class:`TrainingError` when the loss is not finite; the state before that step is kept.
    """
    if resume:
        check_resumed_by("sdas train", Path(config.run_dir))
    with Processes(config.train.device) as processes, opened_run(config, processes, resume) as (cache, split):
        parts = {"validation": split.validation, "test": split.test}
        check_elements(config, cache, split.train, parts)
        check_states(config, cache, split.train, parts)
        size, count = config.train.batch_size, len(split.train)
        if processes.first and size is not None and size > count:
            print(
                f"note: train.batch_size is {size}: each step takes the {count} training frames again", file=sys.stderr
            )
        return fit(config, cache, split.train, split.validation, processes, {"n_test": len(split.test)})


@contextmanager
def opened_run(config: Config, processes: Processes, resume: bool) -> Iterator[tuple[FrameCache, Split]]:
    """The frames of the run in ``config.run_dir`` and their split: of a new run, or of one that is resumed.

    The first process holds the lock of the folder until the block ends, and writes what describes the run.
    """
    folder = Path(config.run_dir)
    with ExitStack() as lock, ExitStack() as undo:
        if processes.first:
            lock.enter_context(locked(folder))
            if resume:
                say_what_changed(find_run(config))
            else:
                given_energies(config.train.energy_reference)
                start_run(config)
                undo.callback(forget_start, config)
            check_place(folder / MODEL)
        with converted_frames(config.data, folder) if processes.first else nullcontext():
            processes.wait()
            cache, split = open_data(config.data, folder)
            processes.wait()
            if processes.first:
                record_run(config, cache, split)
                undo.pop_all()
        if processes.first:
            say_which_frames(cache, split)
            if not resume:
                warn_of_repeated(cache, split)
            print(trained_labels(config.train, cache, split.train), file=sys.stderr)
        yield cache, split


def fit(
    config: Config,
    frames: Sequence[Frame],
    train_indices: NDArray[np.int64],
    validation_indices: NDArray[np.int64],
    processes: Processes,
    facts: dict[str, Any] | None = None,
) -> RunResult:
    """Train on frames of a sequence, by index, from the last checkpoint in ``config.run_dir`` if there is one.

    ``facts`` are added to the summary. Everything else is as :func:`train` says.
    """
    data = TrainingData(frames, train_indices, validation_indices)
    with Session(config, data, processes) as session:
        done = session.advance(session.end)
        if done:
            session.validate()
            session.save()
        return finish(session, done, facts or {})


def finish(session: Session, done: bool, facts: dict[str, Any]) -> RunResult:
    """Write the model, if the run is ``done``, and summary.json with the ``facts``."""
    summary = _summary(session, done, facts)
    if session.processes.first:
        if done:
            save_model(session.folder / MODEL, session.averaged, {"training": summary})
        write_document(session.folder / SUMMARY, summary)
    session.processes.wait()
    return RunResult(session.folder, summary)


def _summary(session: Session, done: bool, facts: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json."""
    progress, processes = session.progress, session.processes
    return {
        "status": "complete" if done else "interrupted",
        "model_fingerprint": model_fingerprint(session.averaged) if done else None,
        "signal": None if done else session.interrupted,
        "steps": progress.step,
        "train_flops": progress.flops,
        "flops_unknown": progress.flops_unknown,
        "flops_estimated": progress.flops_estimated,
        "wall_s": progress.wall_s,
        "n_train": len(session.data.train),
        "n_val": len(session.data.validation),
        **facts,
        "parameters": sum(weight.numel() for weight in session.model.parameters()),
        "loss_unit_ev": session.changes.unit,
        "loss_energy_unit_ev": session.changes.energy_unit,
        "energy_reference": session.changes.energy_reference,
        "last_validation": progress.last,
        "best_validation": progress.best,
        "seed": session.config.train.seed,
        "processes": processes.size,
        "versions": versions(),
        "machine": describe_process(processes.device),
    }
