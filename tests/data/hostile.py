"""Reading hostile files in a process of its own, whose memory is bounded: what would crash shows as a crash there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MEMORY_MIB = 400
SCRIPT = """
import json, resource, sys
import numpy, ase.io, ase.io.extxyz, ase.db, sqlite3, bz2, lzma, gzip, zlib
from sdas.data import DataError, read_frames
for line in open("/proc/self/status"):
    if line.startswith("VmSize"):
        used = int(line.split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + {mib} * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for path in sys.argv[1:]:
    try:
        frames = sum(1 for _ in read_frames(path, check_units=False, require=()))
        print(json.dumps([path, f"read: {{frames}}"]), flush=True)
    except DataError as error:
        print(json.dumps([path, f"refused: {{error}}"]), flush=True)
    except BaseException as error:
        print(json.dumps([path, f"{{type(error).__name__}}: {{error}}"]), flush=True)
"""


def read_in_a_process(paths: Sequence[Path], mib: int = MEMORY_MIB) -> dict[str, str]:
    """Name of the file → ``read: frames``, ``refused: message``, ``other error``, or ``crashed: status``.

    The process may take ``mib`` MiB beyond what the imports took.
    """
    outcomes: dict[str, str] = {}
    left = [str(path) for path in paths]
    while left:
        command = [sys.executable, "-P", "-c", SCRIPT.format(mib=mib), *left]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        outcomes.update({Path(path).name: outcome for path, outcome in told})
        left = left[len(told) :]
        if left:
            outcomes[Path(left.pop(0)).name] = f"crashed: {done.returncode} {done.stderr[-300:]}"
    return outcomes
