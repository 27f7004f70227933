"""Claim: the training loop runs about nine tenths as fast as its kernels, graphs of new frames included.

Steps of a session (`sdas train`) and bare passes of the same model run in turn within one process: forward, loss and
backward on one batch that is ready. What the loop does beside: making batches, optimizer, clipping, weight average,
counters. Two figures, each the median of the ratios with the quartiles:

    ratio            atoms per second of the loop over those of the passes
    ratio_of_cpu     the same by the processor time of the thread that computes, which no other process disturbs: what
                     the loop reaches where the thread that makes batches has a core of its own

    kept     graphs lie in memory from the epoch before
    built    every batch finds its neighbors anew, as in the first epoch, or where the frames take more than memory has

A thread makes the next batch: it wants a core beside those of the kernels. Frames are of ../shared/data.

Run: this file by pytest; the result goes to bench/results/.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import record

from sdas.config import parse_config
from sdas.data import Frame, read_frames
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SETS = {
    "aspirin": ("rmd17/rmd17_aspirin_train_01.npz", {"units": "kcal/mol"}, {"batch_size": 8}),
    "aspirin by atoms": ("rmd17/rmd17_aspirin_train_01.npz", {"units": "kcal/mol"}, {"batch_atoms": 168}),
    "water": ("water/deepmd_pbe0/data_0", {}, {"batch_size": 1}),
}
"""File, how it is read, and what a batch holds: 168 atoms of aspirin, or 192 of water."""
KEPT = {"kept": 4.0, "built": 1e-6}
"""GiB for graphs."""
FRAMES, STEPS, ROUNDS = 64, 4, int(os.environ.get("SDAS_ROUNDS", "25"))


def frames_of(name: str) -> list[Frame]:
    """Some frames of a set; the test is skipped where it is absent."""
    file, options, _ = SETS[name]
    if not (DATA / file).exists():
        pytest.skip(f"REAL DATA ABSENT: {DATA / file}")
    return list(islice(read_frames(DATA / file, **options), FRAMES))


def timed(function: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """The function, which adds the processor time of its calls by this thread."""

    def run() -> None:
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)

    return run


@pytest.fixture(scope="module")
def results() -> record.Results:
    """Written whenever a case is added."""
    record.set_threads()
    return record.Results("training_loop", ("set", "graphs"), "atoms/s; ratio loop / kernels")


@pytest.mark.parametrize("graphs", KEPT)
@pytest.mark.parametrize("name", SETS)
def test_the_loop_against_its_kernels(name: str, graphs: str, results: record.Results, tmp_path: Path) -> None:
    """Both on batches of the same number of atoms."""
    frames = frames_of(name)
    config = parse_config(
        {
            "run_dir": str(tmp_path / "run"),
            "data": {"path": "frames", "graph_cache_gib": KEPT[graphs]},
            "train": {"steps": 10**6, "validate_every": 10**6, "checkpoint_every": 10**6, **SETS[name][2]}
            | {"threads": record.THREADS, "device": "cpu"},
        },
        "benchmark",
    )
    data = TrainingData(frames, np.arange(len(frames)), np.arange(0))
    with Processes("cpu") as processes, Session(config, data, processes) as session:
        assert session._feed is not None
        indices, batch = session._feed.take(0)
        weights, total = session._loss.weights(0.0), session._store.counts(indices)
        terms = session._loss.terms(batch, weights)

        def loop() -> None:
            session.advance(Until(steps=session.progress.step + STEPS))

        def kernels() -> None:
            for _ in range(STEPS):
                predicted = session.model(batch.graph, forces=terms.forces, stress=terms.stress)
                session._loss(predicted, batch, terms, weights, total).backward()
                session.optimizer.zero_grad()

        warmup, cpu = 2 + FRAMES // STEPS, {"loop": list[float](), "kernels": list[float]()}
        watched = {"loop": timed(loop, cpu["loop"]), "kernels": timed(kernels, cpu["kernels"])}
        times = record.in_turn(watched, ROUNDS, warmup)
    atoms = STEPS * batch.graph.num_atoms
    ratio = record.quartiles(times["kernels"], times["loop"])
    of_cpu = record.quartiles(cpu["kernels"][warmup:], cpu["loop"][warmup:])
    speeds = {f"{what}_atoms_per_s": round(atoms / float(np.median(seconds))) for what, seconds in times.items()}
    case = {"set": name, "graphs": graphs, "atoms": batch.graph.num_atoms, "ratio": ratio}
    results.append(case | {"ratio_of_cpu": of_cpu, **speeds})
    print(name, graphs, speeds, ratio, of_cpu)
