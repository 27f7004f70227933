"""The frames that an adaptive run may train on: those of its data, and more of a pool file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdas.config import Config
from sdas.data import Frame, FrameCache, read_frames, write_cache
from sdas.data.frame import check_labelled
from sdas.data.reading_notes import ReadingNotes
from sdas.data.splits import Split
from sdas.errors import ScalingError
from sdas.run.folder import POOL
from sdas.run.frames import required
from sdas.train.graphs import labelled
from sdas.train.objective import check_elements
from sdas.train.processes import Processes
from sdas.train.session import TrainingData
from sdas.train.states import check_states


@dataclass(frozen=True, eq=False)
class Pool:
    """Frames that may train, in the order in which they come into use.

    order [n]: indices. own_frames: how many of the first are of the data; the others are of the pool file.
    validation [m]: indices. test_frames: how many are left for the test.
    """

    frames: Sequence[Frame]
    order: NDArray[np.int64]
    own_frames: int
    validation: NDArray[np.int64]
    test_frames: int

    def data(self, count: int) -> TrainingData:
        """The first ``count`` of them to train on. A larger count adds to them and takes none away."""
        return TrainingData(self.frames, np.sort(self.order[:count]), self.validation)


def opened_pool(config: Config, cache: FrameCache, split: Split, processes: Processes) -> Pool:
    """The pool of a run with these frames; a pool file is converted when the run begins.

    Raises :class:`ScalingError` without two validation frames with forces, and :class:`sdas.data.errors.DataError` for
    frames of the pool that have no labels.
    """
    check_validation(cache, split.validation)
    frames, added = cache, 0
    if config.scaling.pool is not None:
        target = Path(config.run_dir) / POOL
        if processes.first and not target.exists():
            _join(config, cache, config.scaling.pool, target)
        processes.wait()
        frames = FrameCache.open(target)
        added = len(frames) - len(cache)
    generator = np.random.default_rng(config.train.seed)
    own = generator.permutation(split.train)
    order = np.concatenate([own, len(cache) + generator.permutation(added)]).astype(np.int64)
    return Pool(frames, order, len(own), split.validation, len(split.test))


def check_validation(frames: Sequence[Frame], validation: NDArray[np.int64]) -> None:
    """Raise :class:`ScalingError` without two validation frames with forces: errors are compared frame by frame."""
    known = labelled(frames, "forces")
    number = int(np.count_nonzero(known[validation]))
    if number < 2:
        advice = "set data.split.sizes, or data.validation" if np.any(known) else "no frame of the data has any"
        raise ScalingError(
            f"{number} of the {len(validation)} validation frames have forces, and scaling wants two or more, to "
            f"compare errors on: {advice}"
        )


def check_pool(config: Config, pool: Pool, start: int, split: Split) -> None:
    """Raise :class:`sdas.errors.TrainingError` if a frame holds an element that none of the first ``start`` does."""
    parts = {"validation": split.validation, "test": split.test, "pool": pool.order[start:]}
    check_elements(config, pool.frames, pool.order[:start], parts)
    check_states(config, pool.frames, pool.order[:start], parts)


def _join(config: Config, cache: FrameCache, path: str, target: Path) -> None:
    """Write the frames of the data and of the pool file to one cache."""
    options, notes = config.data.reading(), ReadingNotes()
    more = map(check_labelled, read_frames(path, **options.model_dump(), require=required(options), notes=notes))
    write_cache(chain(cache, more), target, options=options, notes=notes)
