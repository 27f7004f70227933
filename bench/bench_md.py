"""Claim: a simulation takes a fraction of the time that NequIP or MACE takes for it, through ASE and as a batch.

All models have 32 channels, degrees up to 2, two layers, a cutoff of 5 Å, float32 unless said, random weights and the
same threads. A step is one of velocity Verlet with all that belongs to it: the neighbors, found by each calculator in
its own way, the model and the integrator. `bench/peers/flight.py` says what moves. Each model runs in a process of its
own; they take turns, so what else the machine does falls on all alike. On a busy machine seconds of processors tell
more than seconds on the clock: nanoseconds per day are of these, at 0.5 fs, and ratios are model / ours through ASE. Of
many systems at once, models behind ASE take one, and ratios are model / our replicas, for each system.

    python bench/bench_md.py [CASE ...]    # such as aspirin "192 water"; all if none is named

    SDAS_PEER_NEQUIP, SDAS_PEER_MACE    Python of an environment with `nequip` or `mace-torch`; absent: skipped
    SDAS_PEER_CACHE                     folder that keeps what NequIP's compiler made; it takes minutes
    SDAS_BENCH_MODELS                   some of the models, as "ours, ase;nequip eager"

The result goes to bench/results/. Environments: bench/peers/README.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from peers import systems
from peers.process import Process

BASE, BATCHED = "ours, ase", "ours, replicas"
MODELS = {  # name: adapter, variant
    BASE: ("md_sdas", "ase"),
    "ours, ase, neighbors anew": ("md_sdas", "ase, neighbors anew"),
    BATCHED: ("md_sdas", "replicas"),
    "ours, replicas, one per call": ("md_sdas", "replicas, one per call"),
    "ours, replicas, float64": ("md_sdas", "replicas, float64"),
    "nequip eager": ("md_nequip", "eager"),
    "nequip compiled": ("md_nequip", "compiled"),
    "mace eager": ("md_mace", "eager"),
}
INTERPRETERS = {
    "md_sdas": sys.executable,
    "md_nequip": os.environ.get("SDAS_PEER_NEQUIP"),
    "md_mace": os.environ.get("SDAS_PEER_MACE"),
}
CHOSEN = os.environ.get("SDAS_BENCH_MODELS", ";".join(MODELS)).split(";")
SHAPE = {"channels": 32, "lmax": 2, "layers": 2, "cutoff": systems.CUTOFF, "step": "forces"}
CASES = ("aspirin", "192 water", "999 water", "64 aspirin")
WARMUP, TURN, ROUNDS, LIMIT = 3, 0.5, 7, 1500.0
TIMESTEP_NS = 0.5e-6


def measure(name: str, path: Path, processes: dict[str, Process]) -> None:
    """Start a model's process, load the system and warm up; raises RuntimeError with the reason if it cannot."""
    adapter, variant = MODELS[name]
    interpreter = INTERPRETERS[adapter]
    if not interpreter:
        raise RuntimeError(f"absent: SDAS_PEER_{adapter.removeprefix('md_').upper()} names no interpreter")
    process = processes[name] = Process(adapter, interpreter, record.THREADS, own_packages=adapter == "md_sdas")
    process.ask("build", variant=variant, **SHAPE)
    process.ask("load", limit=LIMIT, path=str(path))
    for _ in range(WARMUP):
        process.ask("step", limit=LIMIT)


def case(system: str, folder: Path) -> dict[str, Any]:
    """Steps of all models in turn."""
    graph = systems.graph(system)
    batch, alone = folder / "systems.npz", folder / "system.npz"
    systems.save(batch, graph)
    systems.save(alone, systems.graph(system.split()[-1]) if graph.num_systems > 1 else graph)
    at_once = {name: graph.num_systems if "replicas" in MODELS[name][1] else 1 for name in CHOSEN}
    base = BATCHED if graph.num_systems > 1 else BASE
    processes: dict[str, Process] = {}
    found: dict[str, Any] = {}
    for name in CHOSEN:
        try:
            measure(name, batch if at_once[name] > 1 else alone, processes)
        except RuntimeError as error:
            if name in processes:
                processes.pop(name).close()
            found[name] = {"skipped": str(error)}
            print(f"{name} IS SKIPPED: {error}", file=sys.stderr)
    times: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    for _ in range(ROUNDS):
        for name, process in processes.items():
            times[name].append(process.ask("step", least=TURN, limit=LIMIT))
    of_system = {name: [turn["cpu_seconds"] / at_once[name] for turn in turns] for name, turns in times.items()}
    for name, process in processes.items():
        process.close()
        seconds = statistics.median(of_system[name])
        found[name] = {
            "systems": at_once[name],
            "ms": round(1e3 * statistics.median(each["seconds"] for each in times[name]), 3),
            "cpu_ms": round(1e3 * seconds * at_once[name], 3),
            "steps": sum(each["steps"] for each in times[name]),
            "ns_per_day": round(86400 / seconds * TIMESTEP_NS, 4),
        }
        if name != base and base in times:
            found[name]["cpu_over_ours"] = record.quartiles(of_system[name], of_system[base])
        print(f"{system:12} {name:30} {found[name]}")
    sizes = {"atoms": graph.num_atoms, "edges": graph.num_edges, "replicas": graph.num_systems}
    return {"step": "dynamics", "channels": SHAPE["channels"], "system": system, **sizes, "models": found}


def main() -> None:
    results = record.Results(
        "md",
        ("step", "channels", "system"),
        "milliseconds per step of so many systems; ns/day of them together, at 0.5 fs",
    )
    with tempfile.TemporaryDirectory() as folder:
        for system in sys.argv[1:] or CASES:
            results.append(case(system, Path(folder)))


if __name__ == "__main__":
    main()
