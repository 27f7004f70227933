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
from itertools import permutations
from pathlib import Path
from typing import Any

import torch

from sdas.run.machine import processor
from sdas_kernels import native

HERE = Path(__file__).resolve().parent
ORDER_STEP = 7  # from one order of rivals to the next: shares no factor with the number of orders of up to six rivals
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def write_result(benchmark: str, cases: list[dict[str, Any]], unit: str, packages: Sequence[str] = ()) -> Path:
    """Write cases to `bench/results/` (or $SDAS_RESULTS) with the machine, versions, commit and load."""
    record = {
        "benchmark": benchmark,
        "machine": _machine(),
        "processor": processor(),
        "simd": native.simd() if native.available()[0] else native.available()[1],
        "threads": THREADS,
        "load_average_at_end": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": _versions(packages),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "unit": unit,
        "cases": cases,
    }
    path = _place(benchmark)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


class Results:
    """The cases of one benchmark on one machine, written whenever one is added, so that a killed run keeps its own.

    Every case says when and at which commit it was measured. Measuring it anew, known by the values of `key`, replaces
    it; other versions of the packages begin the file anew. With SDAS_RESUME=1, `missing` is false for what the file has
    from this commit: an interrupted run can be gone on with.
    """

    def __init__(self, benchmark: str, key: Sequence[str], unit: str, packages: Sequence[str] = ()) -> None:
        self.benchmark, self.key, self.unit, self.packages = benchmark, tuple(key), unit, packages
        self.commit = _commit()
        self.cases: list[dict[str, Any]] = []
        path = _place(benchmark)
        if path.exists():
            before = json.loads(path.read_text())
            if before["versions"] == _versions(packages):
                said = {"commit": before["commit"], "date": before["date"]}
                self.cases = [said | case for case in before["cases"] if {*self.key} <= case.keys()]

    def missing(self, **case: Any) -> bool:
        """Whether this case is to be measured."""
        found = self.find(**case)
        return found is None or found["commit"] != self.commit or os.environ.get("SDAS_RESUME") != "1"

    def find(self, **case: Any) -> dict[str, Any] | None:
        """The recorded case with these values of the key."""
        return next((c for c in self.cases if all(c[name] == case[name] for name in self.key)), None)

    def append(self, case: dict[str, Any]) -> None:
        """Add a case, or put it in place of its predecessor, and write the file."""
        said = {"commit": self.commit, "date": time.strftime("%Y-%m-%d"), "load_average": os.getloadavg()[0]}
        before = self.find(**case)
        place = len(self.cases) if before is None else self.cases.index(before)
        self.cases[place : place + 1] = [case | said]
        write_result(self.benchmark, self.cases, self.unit, self.packages)


def in_turn(
    functions: dict[str, Callable[[], Any]], rounds: int, warmup: int = 1, turn: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each function, called one after the other in every round, so that the machine's noise falls on all.

    Every round has an order of its own, since what a function has just read or freed is warm for the next. A turn is
    one call, which finds in the caches what the one before left there, or calls for so many seconds, of which the mean
    counts.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    orders = list(permutations(functions.items()))
    for number in range(warmup + rounds):
        for name, function in orders[ORDER_STEP * number % len(orders)]:
            start, calls, result = time.perf_counter(), 0, None
            while calls == 0 or time.perf_counter() - start < turn:
                del result  # as a step's results are, before the next step
                result = function()
                calls += 1
            if number >= warmup:
                times[name].append((time.perf_counter() - start) / calls)
            del result
    return times


def quartiles(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the ratios of each round."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return [round(q, 3) for q in statistics.quantiles(ratios, n=4)] if len(ratios) > 1 else ratios * 3


def set_threads() -> None:
    """Give PyTorch as many threads as every rival gets."""
    torch.set_num_threads(THREADS)


def _machine() -> str:
    return os.environ.get("SDAS_MACHINE") or f"{processor()}, {os.cpu_count()} cores"


def _place(benchmark: str) -> Path:
    stem = "".join(letter if letter.isalnum() else "-" for letter in _machine()).strip("-").lower()
    return Path(os.environ.get("SDAS_RESULTS", HERE / "results")) / f"{benchmark}-{stem}-{THREADS}-threads.json"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: _version(name) for name in ("sdas-kernels", "torch", "numpy", *packages)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return os.environ.get("SDAS_COMMIT") or found.stdout.strip() or "unknown"
