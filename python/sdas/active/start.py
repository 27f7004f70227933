"""How a run of active learning begins in its folder, or goes on there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from sdas.active.folder import SIMULATED
from sdas.active.labels import check_oracle, label
from sdas.config import Config, render_config
from sdas.data import FrameCache, Split, write_cache
from sdas.data.elements import elements_of
from sdas.errors import ActiveError
from sdas.files import as_argument, sweep, write_text
from sdas.run.continuation import check_frames, check_settings, record_start
from sdas.run.folder import ACTS, CONFIG, FRAMES, LABELS, LOCK, POOL, RUN, SPLIT, START
from sdas.run.frames import convert_raw_files, is_cache, open_data, say_which_frames
from sdas.run.start import say_what_changed
from sdas.train.objective import check_elements, trained_labels
from sdas.train.states import check_states


def open_folder(config: Config, resume: bool) -> None:
    """Make the folder of a run with its config.yaml, or look whether the run there can go on with these settings.

    Raises :class:`ActiveError` for a folder with something else, or nothing to resume, and
    :class:`sdas.errors.TrainingError` for settings that cannot change.
    """
    folder = Path(config.run_dir)
    sweep(folder)
    names = set(os.listdir(folder)) - {LOCK}
    if resume and CONFIG not in names:
        raise ActiveError(f"{folder}: no run to resume there ({CONFIG} is missing)")
    if not resume and names:
        raise ActiveError(
            f"{folder} is not empty; resume it with --resume {as_argument(folder)}, or choose another run_dir"
        )
    if RUN in names:
        say_what_changed(check_settings(config, folder, from_cache=is_cache(config.data)))
    write_text(folder / CONFIG, render_config(config))


def begin(config: Config) -> dict[str, Any]:
    """Label the first frames where no data are given, divide the frames to begin with, and check that they will do.

    Gives their numbers, and ``taken``: the indices of frames of the pool that were labeled, or could not be.
    """
    folder, labeled = Path(config.run_dir), dict[str, Any]()
    pool, taken = FrameCache.open(folder / POOL), list[int]()
    check_oracle(pool, config.active)
    if from_nothing(config):
        taken = _first_of_pool(config, len(pool))
        found = label([pool[index] for index in taken], config.active, folder)
        write_cache(found.frames, folder / START, overwrite=True)
        labeled = found.document()
    else:
        convert_raw_files(config.data, folder)
    cache, split = open_data(config.data, folder)
    parts = {"validation": split.validation, "test": split.test}
    check_elements(config, cache, split.train, parts)
    check_states(config, cache, split.train, parts)
    known = elements_of(cache, split.train)
    if new := sorted(set(pool.species) - known):
        names = ", ".join(chemical_symbols[number] for number in new)
        raise ActiveError(
            f"the pool holds {names}, which no training frame does, so the first ensemble knows nothing of it: add "
            "labeled frames that hold it to the data, or leave such frames out of the pool"
        )
    split.save(folder / SPLIT)
    record_start(config, cache, split, folder)
    say_which_frames(cache, split)
    print(trained_labels(config.train, cache, split.train), file=sys.stderr)
    return {**{part: len(indices) for part, indices in {"train": split.train, **parts}.items()}, "taken": taken} | (
        {"first_labels": labeled} if labeled else {}
    )


def opened_start(config: Config) -> tuple[FrameCache, Split]:
    """The frames to begin with and how they are divided, after :func:`begin`."""
    folder = Path(config.run_dir)
    cache, split = open_data(config.data, folder)
    check_frames(cache, split, folder)
    return cache, split


def from_nothing(config: Config) -> bool:
    """Whether the frames to begin with are the run's own, labeled frames of its pool."""
    return config.data.files()["train"] == [own_start(config.run_dir)]


def own_start(run_dir: str) -> str:
    """The path of frames to begin with that are labeled frames of the pool."""
    return str(Path(run_dir).absolute() / START)


def forget(folder: Path) -> None:
    """Take back what a run wrote that could not begin, unless it has labels already."""
    if (folder / LABELS).exists():
        return
    for name in (POOL, FRAMES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (ACTS, CONFIG, SPLIT, RUN, SIMULATED):
        (folder / name).unlink(missing_ok=True)


def _first_of_pool(config: Config, count: int) -> list[int]:
    wanted = config.active.start_labels
    if wanted >= count:
        raise ActiveError(
            f"active.start_labels is {wanted}, and the pool has {count} frames: give a larger one, or label fewer first"
        )
    return np.sort(np.random.default_rng(config.train.seed).permutation(count)[:wanted]).tolist()
