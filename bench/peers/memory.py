"""How much memory a step needs beyond what is held before it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_growth(step: Callable[[], Any]) -> int:
    """Bytes by which the largest resident set grows while `step` runs, after free memory went back to the system.

    So does what our kernels keep from step to step, where they are loaded.
    """
    if "sdas_kernels.memory" in sys.modules:
        sys.modules["sdas_kernels.memory"].release()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))
