"""In which order frames are seen: a function of the seed and the step alone, so nothing has to be remembered."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class FrameOrder:
    """An endless stream of indices: a new permutation of ``frames`` [n] every epoch, cut into batches.

    A batch may reach into the next epoch, so all batches have the same size.
    """

    def __init__(self, frames: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.frames, self.batch_size, self.seed = frames, batch_size, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the frames of a step, int64 [batch_size]."""
        n = len(self.frames)
        stream = range(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._epoch(position // n)[position % n] for position in stream], dtype=np.int64)

    def epoch(self, step: int) -> float:
        """Epochs that have passed before a step."""
        return step * self.batch_size / len(self.frames)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return self.frames[np.random.default_rng([self.seed, epoch]).permutation(len(self.frames))]
