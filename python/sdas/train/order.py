"""In which order frames are seen: a function of the seed and the step alone, so nothing has to be remembered."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class FrameOrder:
    """An endless stream of indices: a new permutation of ``frames`` [n] every epoch, cut into batches.

    A batch may reach into the next epoch, so all batches have the same size.
    """

    def __init__(self, frames: Indices, batch_size: int, seed: int) -> None:
        self.frames, self.batch_size, self.seed = frames, batch_size, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> Indices:
        """Indices of the frames of a step, int64 [batch size]."""
        n = len(self.frames)
        stream = range(self._begin(step), self._begin(step + 1))
        return np.array([self.frames[self._epoch(place // n)[place % n]] for place in stream], dtype=np.int64)

    def epoch(self, step: int) -> float:
        """Epochs that have passed before a step."""
        return self._begin(step) / len(self.frames)

    def _begin(self, step: int) -> int:
        """Place in the stream of the first frame of a step."""
        return step * self.batch_size

    def _shuffled(self, epoch: int) -> Indices:
        """Places in ``frames``, in the order of that epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.frames))


class BudgetedOrder(FrameOrder):
    """The same stream, cut where the next frame would cost more than is left of a budget.

    costs [n]: of each frame, such as its atoms, none above the budget. Batches so far are found one after the other, in
    some seconds for a million.
    """

    def __init__(self, frames: Indices, costs: Indices, budget: int, seed: int) -> None:
        super().__init__(frames, 1, seed)
        self.costs, self.budget = costs, budget
        self._begins, self._epochs, self._spent = array("q", [0]), 0, 0

    def _begin(self, step: int) -> int:
        while len(self._begins) <= step:
            self._cut_epoch()
        return self._begins[step]

    def _cut_epoch(self) -> None:
        """Begin the batches that begin in one more epoch; the open batch has ``_spent`` so far."""
        first = self._epochs * len(self.frames)
        for place, spent in cuts(self.costs[self._epoch(self._epochs)], self.budget, self._spent):
            if place is not None:
                self._begins.append(first + place)
            self._spent = spent
        self._epochs += 1


def cuts(costs: Indices, budget: int, spent: int = 0) -> Iterator[tuple[int | None, int]]:
    """Where batches begin among frames of these ``costs`` [n], after one that has ``spent`` so much of its ``budget``.

    At last None, with what the last batch has spent.
    """
    total = np.concatenate([[0], np.cumsum(costs)])
    place = 0
    while True:
        beyond = int(np.searchsorted(total, total[place] + budget - spent, side="right")) - 1
        if beyond >= len(costs):
            yield None, spent + int(total[-1] - total[place])
            return
        yield beyond, 0
        place, spent = beyond, 0


def in_batches(indices: Indices, costs: Indices, budget: int) -> list[Indices]:
    """The frames of ``indices`` [n] in their order, as batches of at most that cost."""
    return np.split(indices, [place for place, _ in cuts(costs, budget) if place is not None]) if len(indices) else []


def share(indices: Indices, costs: Indices, rank: int, size: int) -> Indices:
    """The frames of a batch that one of ``size`` processes takes: each frame, costly ones first, by the least loaded.

    None where there are fewer frames than processes. Frames of one cost are dealt out in turn.
    """
    if size == 1:
        return indices
    loads, owners = [0] * size, np.empty(len(indices), dtype=np.int64)
    for place in np.argsort(-costs, kind="stable").tolist():
        owner = loads.index(min(loads))
        owners[place] = owner
        loads[owner] += int(costs[place])
    return indices[owners == rank]
