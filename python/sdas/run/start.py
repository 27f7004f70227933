"""How a run begins in its folder, or goes on there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from sdas.config import Config, load_config, render_config
from sdas.data import FrameCache
from sdas.data.readers.packed import OPENERS
from sdas.data.splits import Split
from sdas.errors import ConfigError, TrainingError
from sdas.files import as_argument, sweep, write_text
from sdas.run.continuation import check_frames, check_settings, record_start
from sdas.run.folder import (
    ACTS,
    BEFORE_FIRST_CHECKPOINT,
    CHECKPOINTS,
    CONFIG,
    FOLDS,
    FRAMES,
    LEDGER,
    LOCK,
    POOL,
    RUN,
    RUNS,
    SPLIT,
)
from sdas.run.frames import is_cache


def new_run_folder(data: Sequence[str]) -> Path:
    """A folder in ``runs`` that is not there yet, named from the first file of the data, and numbered from 2 on."""
    path = Path(os.path.abspath(data[0]))
    while path.suffix in OPENERS:
        path = path.with_suffix("")
    name = path.stem.lstrip(".") or "frames"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(folder for folder in (Path(RUNS) / name for name in names) if not os.path.lexists(folder))


def start_run(config: Config) -> None:
    """Make the run directory with its config.yaml; raises :class:`TrainingError` if there is something else.

    What a run left that failed before its first checkpoint is replaced, but no file that may be somebody's.
    """
    folder = Path(config.run_dir)
    names = _swept(folder)
    if names and not (CONFIG in names and names <= BEFORE_FIRST_CHECKPOINT):
        how = "--cross-validate --resume" if FOLDS in names else "--resume"
        advice = f"resume it with {how} {as_argument(folder)}, or choose another run_dir"
        raise TrainingError(f"{folder} is not empty; {advice}")
    if CONFIG in names and (folder / CONFIG).stat().st_size > 0:  # of a killed run of earlier versions
        _check_is_ours(folder / CONFIG)
    if FRAMES in names and RUN not in names:
        raise TrainingError(f"{folder / FRAMES}: no run made it there, so it is left alone; choose another run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FRAMES, POOL):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (SPLIT, RUN):
        (folder / name).unlink(missing_ok=True)
    write_text(folder / CONFIG, render_config(config))


def forget_start(config: Config) -> None:
    """Take back what :func:`start_run` wrote, for a run that failed before it was recorded."""
    (Path(config.run_dir) / CONFIG).unlink(missing_ok=True)


def check_resumed_by(command: str, folder: Path) -> None:
    """Raise :class:`TrainingError` if the run in ``folder`` is none of ``command``, or there is none.

    Each of 'sdas train', 'sdas scale' and 'sdas active' keeps an account of what was trained, in a file of its own.
    """
    if not (folder / CONFIG).is_file():
        raise TrainingError(f"{folder}: no run to resume there ({CONFIG} is missing)")
    accounts = {"sdas active": ACTS, "sdas scale": LEDGER, "sdas train": CHECKPOINTS}
    own = next((each for each, name in accounts.items() if (folder / name).exists()), command)
    if own != command:
        raise TrainingError(
            f"{folder}: a run of '{own}', of which '{command}' knows nothing: go on with "
            f"'{own} --resume {as_argument(folder)}', or start another run"
        )


def find_run(config: Config) -> list[str]:
    """Find the run directory that is to be resumed, and what changed in its settings, in words; nothing is written.

    Raises :class:`TrainingError` if there is no run, or if it cannot go on with these settings.
    """
    folder = Path(config.run_dir)
    if CONFIG not in _swept(folder):
        raise TrainingError(f"{folder}: no run to resume there ({CONFIG} is missing)")
    if not _has_begun(folder):
        return []
    return check_settings(config, folder, from_cache=is_cache(config.data))


def record_run(config: Config, cache: FrameCache, split: Split) -> None:
    """Write the files that describe the run; raises :class:`TrainingError` if it was begun with other frames."""
    folder = Path(config.run_dir)
    if _has_begun(folder):
        check_frames(cache, split, folder)
    write_text(folder / CONFIG, render_config(config))
    split.save(folder / SPLIT)
    record_start(config, cache, split, folder)


def _swept(folder: Path) -> set[str]:
    """What lies in a run directory, after what killed processes left was removed."""
    sweep(folder)
    sweep(folder / CHECKPOINTS)
    return set(os.listdir(folder)) - {LOCK} if folder.is_dir() else set()


def _check_is_ours(path: Path) -> None:
    try:
        load_config(path)
    except ConfigError as error:
        raise TrainingError(f"{error}: it is of no run and left alone; choose another run_dir") from None


def _has_begun(folder: Path) -> bool:
    """Whether there is a state to go on from, or a record that says how it came about."""
    return (folder / RUN).exists() or (folder / CHECKPOINTS).is_dir()


def say_what_changed(changes: list[str]) -> None:
    """A line on standard error for every setting that a resumed run goes on with in place of another."""
    for change in changes:
        print(f"changed from here on: {change}", file=sys.stderr)
