"""Batches of a run, each made while the step before it computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from sdas.config import TrainConfig
from sdas.errors import TrainingError
from sdas.train.graphs import Batch, GraphStore
from sdas.train.lone_atoms import LoneAtoms
from sdas.train.order import BudgetedOrder, FrameOrder, Indices, share
from sdas.train.processes import Processes


def order_of(settings: TrainConfig, store: GraphStore, train: Indices, validation: Indices) -> FrameOrder:
    """The batches of the training frames, as ``settings`` limit them.

    Raises :class:`TrainingError` if a frame, of ``validation`` too, does not fit into a batch.
    """
    unit, most = settings.batch_budget
    if unit == "size":
        return FrameOrder(train, most, settings.seed)
    used = np.concatenate([train, validation])
    costs = store.costs(used, unit)
    if costs.max() > most:
        source = store.frames[int(used[costs.argmax()])].source
        raise TrainingError(f"train.batch_{unit} {most} is less than the {costs.max()} {unit} of {source}: raise it")
    return BudgetedOrder(train, costs[: len(train)], most, settings.seed)


class Feed:
    """Gives the batch of every step, or this process's share of it; a thread makes the next one meanwhile.

    Kernels run without Python's lock, so both go on at once where there is a core to spare. What a batch holds depends
    on its step alone. ``lone_atoms``, if there are any, stand beside its frames.
    """

    def __init__(
        self, order: FrameOrder, store: GraphStore, processes: Processes, lone_atoms: LoneAtoms | None = None
    ) -> None:
        self._order, self._store, self._processes, self._lone_atoms = order, store, processes, lone_atoms
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[tuple[Indices, Batch]]] | None = None

    def take(self, step: int) -> tuple[Indices, Batch]:
        """Indices of the frames of a step, of all processes; and this one's share of them, on its device.

        Raises what making the batch does, such as `DataError`.
        """
        made = self._make(step) if self._next is None or self._next[0] != step else self._next[1].result()
        self._next = step + 1, self._worker.submit(self._make, step + 1)
        indices, batch = made
        return indices, batch.to(self._processes.device)

    def close(self) -> None:
        """Wait for the batch that is being made, and forget it."""
        self._worker.shutdown(cancel_futures=True)
        self._next = None

    def _make(self, step: int) -> tuple[Indices, Batch]:
        indices = self._order.batch(step)
        own = share(indices, self._store.costs(indices, "atoms"), self._processes.rank, self._processes.size)
        batch = self._store.batch(own)
        return indices, batch if self._lone_atoms is None else self._lone_atoms.beside(batch)
