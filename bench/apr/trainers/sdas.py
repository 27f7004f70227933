"""This library's own models, trained as users train them: by `sdas.train`, on a frame cache."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apr.protocol import CUTOFF, PARTS
from apr.trainers.frames import Frames
from apr.trainers.loop import summarized
from sdas.config import Config, parse_config
from sdas.data import Frame, write_cache
from sdas.predict import predict
from sdas.run.model import load_run_model
from sdas.train.loop import fit
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until
from sdas_kernels import native
from sdas_kernels.flops import FlopCounter
from sdas_kernels.graph import NeighborGraph

COUNTED_STEPS = 8
"""Steps of a trial run, by which the steps that a budget pays for are known."""


def frames_of(part: Frames, name: str) -> list[Frame]:
    """As the pipeline has them."""
    return [
        Frame(
            part.numbers.astype(np.int64),
            part.positions[i],
            part.cells[i] if part.pbc[i].any() else None,
            part.pbc[i],
            float(part.energies[i]),
            part.forces[i],
            None,
            f"{name}: frame {i}",
        )
        for i in range(len(part))
    ]


def train(cell: dict[str, Any], path: Path, layer: str = "default") -> dict[str, Any]:
    """Train and test one cell; `layer` of the model as `model.layer`.

    Raises RuntimeError without compiled kernels: plain PyTorch takes other steps and times.
    """
    available, why = native.available()
    if not available:
        raise RuntimeError(why)
    parts = {name: Frames.read(path, name) for name in PARTS}
    frames = [frame for name in ("train", "validation") for frame in frames_of(parts[name], name)]
    known = np.arange(len(frames))
    indices = known[: len(parts["train"])], known[len(parts["train"]) :]
    with tempfile.TemporaryDirectory() as folder, Processes("cpu") as processes:
        cache = write_cache(frames, Path(folder) / "cache")
        trial = configured(cell, Path(folder), "trial", COUNTED_STEPS, layer)
        with Session(trial, TrainingData(cache, *indices), processes) as session:
            session.advance(Until(steps=COUNTED_STEPS))
            session.save()
            steps = max(1, round(cell["budget"] * COUNTED_STEPS / session.progress.flops))
        config = configured(cell, Path(folder), "run", steps, layer)
        start, cpu = time.monotonic(), time.process_time()
        summary = fit(config, cache, *indices, processes).summary
        wall_s, cpu_s = time.monotonic() - start, time.process_time() - cpu
        model = load_run_model(Path(folder) / "run", "cpu")
        found = {name: errors(model, parts[name]) for name in ("validation", *(() if cell["search"] else ("test",)))}
    graph = NeighborGraph.build(frames[0].positions, frames[0].numbers, CUTOFF, frames[0].cell, frames[0].pbc)
    graph = graph.to(dtype=torch.float32)
    with FlopCounter() as counter:
        model(graph)
    return {
        "test": None,
        **found,
        "train_flops": summary["train_flops"],
        "flops_residual": 0.0,
        "steps": steps,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "parameters": summary["parameters"],
        "inference_flops_per_atom": counter.total / len(frames[0].numbers),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "settings": settings(config),
        "packages": ("sdas-kernels",),
    }


def configured(cell: dict[str, Any], folder: Path, name: str, steps: int, layer: str) -> Config:
    """The package's defaults but for what the cell says; its "changes" are keys of the sections model and train."""
    recipe = cell["recipe"]
    changes = cell.get("changes", {})
    train = {
        "steps": steps,
        "seed": cell["seed"],
        "optimizer": recipe["optimizer"],
        "learning_rate": recipe["rate"],
        "batch_size": recipe["batch"],
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "validate_every": max(1, steps // 20),
        "checkpoint_every": steps,
    }
    return parse_config(
        {
            "run_dir": str(folder / name),
            "data": {"path": str(folder / "cache")},
            "model": {"cutoff": CUTOFF, "layer": layer, **changes.get("model", {})},
            "train": train | changes.get("train", {}),
        },
        "the cell",
    )


def settings(config: Config) -> dict[str, str]:
    """What was set, and why."""
    model, train = config.model, config.train
    return {
        "network": f"{model.layers} layers, {model.channels} channels, {model.heads} heads, lmax {model.lmax}: default",
        "loss": f"{train.loss} of errors of energies per atom and of forces, {train.energy_weight:g} : 1: defaults",
        "average": f"decay {train.ema_decay:g}: default",
    }


def errors(model: Any, part: Frames) -> dict[str, float]:
    """Of a trained model on one part."""
    frames = frames_of(part, "frames")
    found = [predict(model, frames[first : first + 20]) for first in range(0, len(frames), 20)]
    energy = np.concatenate([some.energy for some in found]) - part.energies
    forces = np.concatenate([some.forces for some in found]) - part.forces.reshape(-1, 3)
    return summarized(energy, forces.ravel())
