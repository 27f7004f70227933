"""Frames to workers, and what comes back: each worker gets one frame at a time, and a clock.

The engine says where workers are: processes of this machine (:mod:`sdas.label.processes`), or actors of a Ray cluster
(:mod:`sdas.label.actors`). A worker that dies is replaced, and its frame tried again. One that takes too long is
killed, and its frame is given up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sdas.config.label import ResourcesConfig
from sdas.data.frame import Frame
from sdas.errors import LabelError
from sdas.label.oracle import Failure, Label

Outcome = Label | Failure
DEATHS_AT_START = 3
"""How many workers in a row may die before they are ready."""


class WorkerDiedError(Exception):
    """The worker is gone; the message says how."""


class Worker(Protocol):
    """Something that labels one frame at a time."""

    def submit(self, frame: Frame) -> None:
        """Begin with a frame; a dead worker says so only by :meth:`collect`."""
        ...

    def collect(self) -> Outcome | None:
        """What it has to say: None once, when it has started, and then an outcome for each frame.

        Raises WorkerDiedError."""
        ...

    def kill(self) -> None:
        """End it at once, whatever it does."""
        ...


class Engine(Protocol):
    """Where workers run."""

    def start(self) -> Worker:
        """A new worker, which is not ready yet."""
        ...

    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        """Those of ``workers`` that have something to say or died, as soon as there is one."""
        ...


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    frame: Frame
    deaths: int = 0


@dataclass(slots=True)
class _Desk:
    """A worker and its task. since: when it began with it; None before the worker is ready."""

    worker: Worker
    task: _Task
    since: float | None = None

    def begin(self, task: _Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.worker.submit(task.frame)


def label_all(
    frames: Iterable[tuple[int, Frame]], engine: Engine, resources: ResourcesConfig
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of numbered frames, in the order in which they come.

    Frames are taken one by one, when a worker is free. Raises :class:`LabelError` if workers die before they are ready.
    """
    fresh = (_Task(number, frame) for number, frame in frames)
    again: deque[_Task] = deque()
    desks: list[_Desk] = []
    deaths_at_start = 0

    def next_task() -> _Task | None:
        return again.popleft() if again else next(fresh, None)

    def dismiss(desk: _Desk) -> None:
        desks.remove(desk)
        desk.worker.kill()

    try:
        while True:
            while len(desks) < resources.workers and (task := next_task()) is not None:
                desks.append(_Desk(engine.start(), task))
            if not desks:
                return
            talking = engine.wait([desk.worker for desk in desks], _patience(desks, resources.timeout_s))
            for desk in list(desks):
                if desk.worker not in talking:
                    if desk.since is not None and time.monotonic() - desk.since >= resources.timeout_s:
                        dismiss(desk)
                        yield desk.task.number, Failure("timeout", f"took longer than {resources.timeout_s:g} s")
                    continue
                try:
                    outcome = desk.worker.collect()
                except WorkerDiedError as death:
                    dismiss(desk)
                    if desk.since is None:
                        deaths_at_start += 1
                        if deaths_at_start == DEATHS_AT_START:
                            raise LabelError(f"workers end before they begin: {death}") from None
                        again.append(desk.task)
                    elif desk.task.deaths < resources.retries:
                        again.append(replace(desk.task, deaths=desk.task.deaths + 1))
                    else:
                        yield desk.task.number, _killed(death, desk.task)
                    continue
                if outcome is None:
                    deaths_at_start = 0
                    desk.begin(desk.task)
                    continue
                yield desk.task.number, _with_deaths(outcome, desk.task.deaths)
                following = next_task()
                if following is None:
                    dismiss(desk)
                else:
                    desk.begin(following)
    finally:
        for desk in desks:
            desk.worker.kill()


def _patience(desks: Sequence[_Desk], timeout_s: float) -> float | None:
    """Seconds until the next worker has taken too long; None while none has begun."""
    ends = [desk.since + timeout_s for desk in desks if desk.since is not None]
    return max(0.0, min(ends) - time.monotonic()) if ends else None


def _killed(death: WorkerDiedError, task: _Task) -> Failure:
    tries = task.deaths + 1
    return Failure("killed", f"its worker died {tries} times, the last one {death}; perhaps it needs more memory")


def _with_deaths(outcome: Outcome, deaths: int) -> Outcome:
    """``outcome``, which tells how many workers died at it, if any did."""
    return replace(outcome, facts={**outcome.facts, "workers_lost": deaths}) if deaths else outcome
