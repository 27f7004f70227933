"""Claim: a step of the whole model takes a fraction of a step of NequIP or MACE of the same size, on the same atoms.

All models have the same degrees, channels, layers and cutoff, float32, random weights, the same threads and the same
neighbor list, given beforehand; the rest is each model's own recommendation (`bench/peers/`). Each runs in a process of
its own, with the interpreter of its own environment. In every round each takes steps for a fifth of a second, at least
one, so that what else the machine does falls on all alike and small systems run from warm caches, as they do in a
simulation; the ratios are model / ours of each round. On a machine that others share, seconds of processors tell more
than seconds on the clock; both are recorded.

    forces      energies and forces, nothing kept for second derivatives
    training    a loss on energies and forces and its gradient by all weights, without the optimizer

Peak memory is what the process's resident set grows by within a step.

    SDAS_PEER_NEQUIP, SDAS_PEER_MACE    Python of an environment with `nequip` or `mace-torch`; absent: skipped
    SDAS_BENCH=quick                    one molecule and the box of 999 atoms, without the compiled variants, which take
                                        minutes to compile; SDAS_BENCH_MODELS chooses some, as "nequip eager,mace eager"
    SDAS_PEER_CACHE                     folder that keeps what NequIP's compiler made, for another run
    SDAS_RESUME=1                       go on with an interrupted run

Run: `make bench`, or this file by pytest; the result goes to bench/results/. Environments: bench/peers/README.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import record
from peers import systems
from peers.process import Process

QUICK = os.environ.get("SDAS_BENCH") == "quick"
INTERPRETERS = {
    "sdas": sys.executable,
    "nequip": os.environ.get("SDAS_PEER_NEQUIP"),
    "mace": os.environ.get("SDAS_PEER_MACE"),
}
MODELS = {  # name: adapter, variant
    "ours": ("sdas", "eager"),
    "ours compiled": ("sdas", "compiled"),
    "nequip eager": ("nequip", "eager"),
    "nequip compiled": ("nequip", "compiled"),
    "mace eager": ("mace", "eager"),
    "mace scripted": ("mace", "scripted"),
    "mace compiled": ("mace", "compiled"),
}
CHOSEN = [
    "ours",
    *os.environ.get(
        "SDAS_BENCH_MODELS", ",".join(name for name in list(MODELS)[1:] if not (QUICK and "compiled" in name))
    ).split(","),
]
LMAX, LAYERS = 2, 2
SMALL = ("aspirin", "999 water") if QUICK else ("aspirin", "8 ethanol", "192 water", "999 water")
LARGE = () if QUICK else ("8001 water", "27000 water", "63999 water", "99999 water")
CASES = [  # step, channels, system, whether rivals are measured
    *(("forces", 32, system, True) for system in SMALL),
    *(("training", 32, system, True) for system in (*SMALL, *(() if QUICK else ("2x 498 water",)))),
    *((step, 64, "999 water", True) for step in ("forces", "training") if not QUICK),
    *(("forces", 32, system, False) for system in LARGE),
    *(("training", 32, system, False) for system in LARGE[:1]),
]
WARMUP, TURN, BUDGET, COMPILE_LIMIT = 3, 0.2, 8.0 if QUICK else 20.0, 1500.0


class Crew:
    """The processes of all models for one step and number of channels; `failed` tells which were left out, and why."""

    def __init__(self, step: str, channels: int, chosen: list[str]) -> None:
        self.processes: dict[str, Process] = {}
        self.built: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        for name in chosen:
            adapter, variant = MODELS[name]
            interpreter = INTERPRETERS[adapter]
            if not interpreter:
                self.fail(name, f"absent: SDAS_PEER_{adapter.upper()} names no interpreter")
                continue
            process = Process(adapter, interpreter, record.THREADS, own_packages=adapter == "sdas")
            self.processes[name] = process
            shape = {"channels": channels, "lmax": LMAX, "layers": LAYERS, "cutoff": systems.CUTOFF}
            self.built[name] = self.ask(name, "build", variant=variant, step=step, **shape)

    def ask(self, name: str, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer, or nothing if the model failed."""
        try:
            return self.processes[name].ask(do, **arguments)
        except RuntimeError as error:
            self.fail(name, str(error))
            return {}

    def fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        warnings.warn(f"{name} is skipped: {reason}", stacklevel=2)
        if name in self.processes:
            self.processes.pop(name).close()

    def close(self) -> None:
        for process in self.processes.values():
            process.close()


@pytest.fixture(scope="module")
def results() -> record.Results:
    unit = "milliseconds; ratios are model / ours, [lower quartile, median, upper quartile]"
    return record.Results("models", ("step", "channels", "system"), unit)


@pytest.fixture(scope="module")
def crew() -> Iterator[Any]:
    """`crew(step, channels, chosen)`: the processes, kept while the cases ask for the same."""
    kept: dict[tuple[Any, ...], Crew] = {}

    def get(step: str, channels: int, chosen: list[str]) -> Crew:
        wanted = (step, channels, *chosen)
        if wanted not in kept:
            for old in kept.values():
                old.close()
            kept.clear()
            kept[wanted] = Crew(step, channels, chosen)
        return kept[wanted]

    yield get
    for old in kept.values():
        old.close()


def measure(crew: Crew, path: Path) -> dict[str, Any]:
    """Load the system everywhere, check, warm up, and take steps in turn."""
    rows: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for name in list(crew.processes):
        try:
            crew.processes[name].ask("load", limit=COMPILE_LIMIT, path=str(path))
        except RuntimeError as error:  # the process lives on: another system may suit it
            refused[name] = str(error)
            warnings.warn(f"{name} is skipped: {error}", stacklevel=2)
            continue
        rows[name] = crew.ask(name, "check", limit=COMPILE_LIMIT)
        for _ in range(WARMUP):
            if name in crew.processes:
                crew.ask(name, "step")
    names = [name for name in rows if name in crew.processes]
    if "ours" not in names:
        raise RuntimeError(f"ours: {crew.failed.get('ours', refused.get('ours'))}")
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    spent = 0.0
    while len(steps["ours"]) < 3 or (len(steps["ours"]) < 31 and spent < BUDGET * len(names)):
        for name in names:
            steps[name].append(crew.processes[name].ask("step", least=TURN))
            spent += steps[name][-1]["seconds"] * steps[name][-1]["steps"]
    found: dict[str, Any] = {name: {"skipped": reason} for name, reason in {**crew.failed, **refused}.items()}
    for name in names:
        wall, processors = ([s[kind] for s in steps[name]] for kind in ("seconds", "cpu_seconds"))
        peak = crew.processes[name].ask("memory")["bytes"]
        found[name] = {
            "ms": round(1e3 * statistics.median(wall), 3),
            "cpu_ms": round(1e3 * statistics.median(processors), 3),
            "rounds": len(wall),
            "first_step_s": round(rows[name]["seconds"], 2),
            "peak_mib": round(peak / 2**20, 1),
            "parameters": crew.built[name]["parameters"],
            "versions": crew.built[name]["versions"],
        }
        if name != "ours":
            for ours in ("ours", "ours compiled"):
                if ours in steps and ours != name:
                    key = f"over_{ours.replace(' ', '_')}"
                    found[name][key] = record.quartiles(wall, [s["seconds"] for s in steps[ours]])
                    found[name][f"cpu_{key}"] = record.quartiles(processors, [s["cpu_seconds"] for s in steps[ours]])
    return found


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("step", "channels", "system", "rivals"), CASES)
def test_model(
    benchmark: Any,
    results: record.Results,
    crew: Any,
    tmp_path: Path,
    step: str,
    channels: int,
    system: str,
    rivals: bool,
) -> None:
    key = {"step": step, "channels": channels, "system": system}
    if not results.missing(**key):
        pytest.skip("measured already at this commit")
    graph = systems.graph(system)
    systems.save(tmp_path / "system.npz", graph)
    chosen = crew(step, channels, CHOSEN if rivals else CHOSEN[:1])
    models = benchmark.pedantic(measure, (chosen, tmp_path / "system.npz"), rounds=1)
    sizes = {"atoms": graph.num_atoms, "edges": graph.num_edges, "lmax": LMAX, "layers": LAYERS, "dtype": "float32"}
    row: dict[str, Any] = key | sizes
    for found in models.values():
        if "ms" in found:
            found["atoms_per_second"] = round(1e3 * graph.num_atoms / found["ms"], 1)
    benchmark.extra_info.update(row | {"models": models})
    results.append(row | {"models": models})
