"""Where members of an ensemble are trained: in this process, in processes of this machine, or on a Ray cluster.

Each does the same with a folder (:func:`sdas.active.member.train_member`), so it does not matter for what comes of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from sdas.active.folder import LOG
from sdas.active.member import train_member
from sdas.errors import ActiveError
from sdas.label.actors import connected
from sdas.label.processes import environment
from sdas.train.interruption import Interruption

SECONDS_BETWEEN_LOOKS = 0.1
RETRIES = 2
"""Of a task in a cluster whose worker died."""
Finished = Callable[[Path], None]


class Interrupted(Exception):
    """A signal asked to stop; all that was trained is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Engine(Protocol):
    """Trains the members in folders."""

    def train(self, folders: Sequence[Path], finished: Finished) -> None:
        """Train those that are not yet trained; ``finished`` is told of each.

        Raises:
            Interrupted: by a signal.
            ActiveError: a member failed, or its process was killed; the others are stopped, and saved.
        """
        ...


class Here:
    """In this process, one after the other."""

    def train(self, folders: Sequence[Path], finished: Finished) -> None:
        """See :class:`Engine`."""
        for folder in folders:
            stopped = train_member(folder)
            if stopped is not None:
                raise Interrupted(stopped)
            finished(folder)


class LocalProcesses:
    """In ``count`` processes of this machine at a time, with ``threads`` each."""

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads

    def train(self, folders: Sequence[Path], finished: Finished) -> None:
        """See :class:`Engine`."""
        waiting, running = list(folders), dict[Path, subprocess.Popen[bytes]]()
        with Interruption() as interruption:
            try:
                while waiting or running:
                    while waiting and len(running) < self.count:
                        folder = waiting.pop(0)
                        running[folder] = self._start(folder)
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    if interruption.signal is not None:
                        raise Interrupted(interruption.signal)
                    for folder, process in list(running.items()):
                        status = process.poll()
                        if status is not None:
                            del running[folder]
                            _check(status, folder)
                            finished(folder)
            finally:
                for process in running.values():
                    with suppress(ProcessLookupError):
                        process.send_signal(signal.SIGTERM)
                for process in running.values():
                    process.wait()

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        with open(folder / LOG, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "sdas.active.member", str(folder)],
                env=os.environ | environment(self.threads),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class RayCluster:
    """As tasks of a Ray cluster, each with ``threads`` cores. Its machines share the file system of the run.

    It is the cluster that :mod:`sdas.label.actors` finds.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def train(self, folders: Sequence[Path], finished: Finished) -> None:
        """See :class:`Engine`. A task whose worker dies is tried again, and goes on from its last checkpoint."""
        ray = connected()
        task = ray.remote(_trained).options(
            num_cpus=self.threads, max_retries=RETRIES, runtime_env={"env_vars": environment(self.threads)}
        )
        running: dict[Any, Path] = {task.remote(str(folder)): folder for folder in folders}
        try:
            while running:
                (ready, *_), _ = ray.wait(list(running))
                folder = running.pop(ready)
                try:
                    ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    raise ActiveError(f"{folder}: {error.cause}") from error
                except ray.exceptions.RayError as error:
                    raise ActiveError(f"{folder}: its worker died {RETRIES + 1} times: {error}") from None
                finished(folder)
        finally:
            for reference in running:
                ray.cancel(reference)


def _trained(folder: str) -> None:
    stopped = train_member(Path(folder))
    if stopped is not None:
        raise ActiveError(f"stopped by signal {stopped}; resume the run")


def _check(status: int, folder: Path) -> None:
    """Raise unless a process ended well."""
    if status == 0:
        return
    if status < 0:
        raise ActiveError(f"{folder}: its process was killed by {signal.Signals(-status).name}; resume the run")
    if status > 128:
        raise Interrupted(status - 128)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ActiveError(f"{folder}: {lines[-1].removeprefix('error: ') if lines else f'ended with status {status}'}")
