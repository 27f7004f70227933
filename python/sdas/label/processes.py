"""Workers that are processes of this machine.

A worker is a new interpreter, not a fork: threads and GPUs of this process are none of its business, and a script
needs no ``if __name__ == "__main__"``. It ends when this process does, however that ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from sdas.config.label import OracleConfig, ResourcesConfig
from sdas.data.frame import Frame
from sdas.label.pool import Outcome, Worker, WorkerDiedError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SECONDS_TO_END = 10.0


def environment(threads: int) -> dict[str, str]:
    """Variables of a new process: the modules of this one, and so many CPU threads."""
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return {**dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path}


class Processes:
    """Starts worker processes for one oracle."""

    def __init__(self, oracle: OracleConfig, resources: ResourcesConfig) -> None:
        self.oracle, self.resources = oracle, resources

    def start(self) -> Worker:
        """A new process."""
        return ProcessWorker(self.oracle, self.resources)

    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        """Those with something to read, or whose end of the line is closed."""
        ours = [worker for worker in workers if isinstance(worker, ProcessWorker)]
        talking = wait([worker.line for worker in ours], timeout_s)
        return [worker for worker in ours if worker.line in talking]


class ProcessWorker:
    """One process and the line to it."""

    def __init__(self, oracle: OracleConfig, resources: ResourcesConfig) -> None:
        here, there = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdas.label.worker", str(there.fileno())],
            env=os.environ | environment(resources.threads),
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        there.close()
        self.line = Connection(here.detach())
        self._send((oracle, resources.memory_mib))

    def submit(self, frame: Frame) -> None:
        """Send a frame."""
        self._send(frame)

    def collect(self) -> Outcome | None:
        """Read an outcome, None of a process that is ready."""
        try:
            outcome: Outcome | None = self.line.recv()
        except (EOFError, OSError):
            raise WorkerDiedError(self._end()) from None
        return outcome

    def kill(self) -> None:
        """End the process and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()

    def _send(self, message: object) -> None:
        with suppress(OSError):  # of a dead process: `collect` tells how it ended
            self.line.send(message)

    def _end(self) -> str:
        try:
            status = self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "without a word"
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
