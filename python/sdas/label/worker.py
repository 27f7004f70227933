"""The process of a worker: ``python -m sdas.label.worker FD``, where FD is the line to whoever started it."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from sdas.data.frame import Frame
from sdas.label.oracle import make_oracle, outcome_of


def main(descriptor: int) -> None:
    """Make the oracle, say so by None, and answer each frame by its outcome."""
    line = Connection(descriptor)
    oracle = make_oracle(*line.recv())
    frames: SimpleQueue[Frame] = SimpleQueue()
    Thread(target=_read, args=(line, frames), daemon=True).start()
    line.send(None)
    while True:
        line.send(outcome_of(oracle, frames.get()))


def _read(line: Connection, frames: SimpleQueue[Frame]) -> None:
    """Take in frames. When the line is closed nobody waits for this process: it ends, in the midst of a calculation."""
    try:
        while True:
            frames.put(line.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
