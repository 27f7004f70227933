"""The parent's side of `peers.worker`: starts one, and asks it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parents[1]


class Process:
    """A model in a process of its own. `ask` raises RuntimeError with what it answered or wrote when it fails."""

    def __init__(self, adapter: str, interpreter: str, threads: int, own_packages: bool) -> None:
        places = [str(BENCH), *([os.environ.get("PYTHONPATH", "")] if own_packages else [])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [interpreter, "-P" if own_packages else "-s", "-m", "peers.worker", adapter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def ask(self, do: str, limit: float = 600.0, **arguments: Any) -> dict[str, Any]:
        """Send a request; wait at most `limit` seconds for its answer, else end the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(limit, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
        if not line:
            self.log.seek(0)
            reason = f"no answer within {limit:.0f} s" if timed_out else self.log.read()[-500:].strip()
            raise RuntimeError(f"{do}: {reason}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{do}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        self.log.close()
