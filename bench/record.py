"""What every benchmark result says beside its numbers, and where it is written."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sdas_kernels import native

HERE = Path(__file__).resolve().parent
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def write_result(benchmark: str, cases: list[dict[str, Any]], unit: str, packages: Sequence[str] = ()) -> Path:
    """Write cases to `bench/results/` (or $SDAS_RESULTS) with the machine, versions, commit and load."""
    machine = os.environ.get("SDAS_MACHINE") or f"{_processor()}, {os.cpu_count()} cores"
    record = {
        "benchmark": benchmark,
        "machine": machine,
        "processor": _processor(),
        "simd": native.simd() if native.available()[0] else native.available()[1],
        "threads": THREADS,
        "load_average_at_end": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("sdas-kernels", "torch", "numpy", *packages)},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "unit": unit,
        "cases": cases,
    }
    stem = "".join(letter if letter.isalnum() else "-" for letter in machine).strip("-").lower()
    folder = Path(os.environ.get("SDAS_RESULTS", HERE / "results"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}-{stem}-{THREADS}-threads.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def in_turn(functions: dict[str, Callable[[], Any]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each function, called one after the other in every round, so that the machine's noise falls on all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
            del result
    return times


def quartiles(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the ratios of each round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return [round(q, 3) for q in statistics.quantiles(ratios, n=4)] if len(ratios) > 1 else ratios * 3


def set_threads() -> None:
    """Give PyTorch as many threads as every rival gets."""
    torch.set_num_threads(THREADS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return os.environ.get("SDAS_COMMIT") or found.stdout.strip() or "unknown"
