"""Run a model over labelled frames, batch by batch, and compare."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from tqdm import tqdm

from sdas.data import Frame, check_frame
from sdas.errors import SdasError
from sdas.evaluate.metrics import Array, energy_metrics, force_metrics, force_metrics_by_element, stress_metrics
from sdas.evaluate.model import species_of
from sdas_kernels.graph import NeighborGraph


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on B frames with N atoms in all.

    metrics: the numbers of `sdas.evaluate.metrics`, keys carry their units. by_element: force errors per chemical
    symbol. numbers [N], offsets [B+1]: frame i has the atoms offsets[i]:offsets[i + 1]. Energies [B] in eV, forces
    [N, 3] in eV/Å, stresses [B, 3, 3] in eV/Å³ or None. wall_s: seconds, neighbor lists included.
    """

    metrics: dict[str, float | None]
    by_element: dict[str, dict[str, Any]]
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    energies: Array
    reference_energies: Array
    forces: Array
    reference_forces: Array
    stresses: Array | None
    reference_stresses: Array | None
    wall_s: float

    @property
    def n_frames(self) -> int:
        """B."""
        return len(self.energies)

    @property
    def n_atoms(self) -> int:
        """N."""
        return len(self.numbers)

    def summary(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        counts = {"n_frames": self.n_frames, "n_atoms": self.n_atoms, "wall_s": self.wall_s}
        return {**counts, **self.metrics, "by_element": self.by_element}


def evaluate(
    model: torch.nn.Module,
    frames: Iterable[Frame],
    batch_size: int = 16,
    *,
    stress: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Errors of `model` on `frames`, which are read as a stream.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or anything with its call, `species` and `cutoff`. It is left in the mode
            (train or eval) in which it came; evaluation itself runs in eval mode.
        frames: labelled frames. Each needs energy and forces, and with `stress` also a stress.
        batch_size: frames per call of the model.
        progress: show a bar on stderr.

    Raises:
        SdasError: no frames, an element that the model does not know, or a model that returns non-finite numbers.
        DataError: a frame lacks a label, or holds values that make no sense.
    """
    if batch_size < 1:
        raise SdasError(f"batch size must be at least 1, got {batch_size}")
    known = set(species_of(model))
    require = ("energy", "forces", "stress") if stress else ("energy", "forces")
    total = len(frames) if isinstance(frames, Sequence) else None
    done: list[Frame] = []
    energies, forces, stresses = [], [], []
    was_training = model.training
    model.eval()
    start = time.perf_counter()
    try:
        with tqdm(total=total, desc="evaluate", unit="frame", disable=not progress) as bar:
            for batch in _batches(frames, batch_size):
                for frame in batch:
                    check_frame(frame, require)
                    _check_elements(frame, known)
                out = predict(model, batch, stress=stress)
                _check_finite(out, batch)
                energies.append(out["energy"])
                forces.append(out["forces"])
                if stress:
                    stresses.append(out["stress"])
                done.extend(batch)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    if not done:
        raise SdasError("there are no frames to evaluate on")
    wall_s = time.perf_counter() - start
    return _compare(done, np.concatenate(energies), np.concatenate(forces), stresses, wall_s)


def predict(model: torch.nn.Module, frames: Sequence[Frame], *, stress: bool = False) -> dict[str, Array]:
    """energy `[B]` eV, forces `[N, 3]` eV/Å, and stress `[B, 3, 3]` eV/Å³ if wanted, of one batch; float64."""
    parameter = next(model.parameters())
    cutoff = float(model.cutoff)  # type: ignore[arg-type]
    graphs = [NeighborGraph.build(f.positions, f.numbers, cutoff, f.cell, f.pbc, parameter.dtype) for f in frames]
    out = model(NeighborGraph.batch(graphs).to(parameter.device), forces=True, stress=stress)
    wanted = ("energy", "forces", "stress") if stress else ("energy", "forces")
    return {name: out[name].detach().cpu().numpy().astype(np.float64) for name in wanted}


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    stream = iter(frames)
    while batch := list(islice(stream, size)):
        yield batch


def _check_elements(frame: Frame, known: set[int]) -> None:
    strange = sorted(set(np.unique(frame.numbers).tolist()) - known)
    if strange:
        names = ", ".join(chemical_symbols[number] for number in strange)
        species = ", ".join(chemical_symbols[number] for number in sorted(known))
        raise SdasError(f"{frame.source}: the model does not know {names}; it was trained on {species}")


def _check_finite(out: dict[str, Array], batch: Sequence[Frame]) -> None:
    atoms = np.repeat(np.arange(len(batch)), [len(frame) for frame in batch])
    for name, values in out.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            frame = batch[atoms[row] if name == "forces" else row]
            raise SdasError(f"{frame.source}: the model's {name} is not finite; its training may have diverged")


def _compare(frames: list[Frame], energies: Array, forces: Array, stresses: list[Array], wall_s: float) -> Evaluation:
    counts = np.array([len(frame) for frame in frames])
    numbers = np.concatenate([frame.numbers for frame in frames])
    true_energies = np.array([frame.energy for frame in frames], dtype=np.float64)
    true_forces = np.concatenate([frame.forces for frame in frames if frame.forces is not None])
    metrics: dict[str, float | None] = {
        **energy_metrics(energies, true_energies, counts),
        **force_metrics(forces, true_forces),
    }
    all_stresses = true_stresses = None
    if stresses:
        all_stresses = np.concatenate(stresses)
        true_stresses = np.stack([frame.stress for frame in frames if frame.stress is not None])
        metrics.update(stress_metrics(all_stresses, true_stresses))
    return Evaluation(
        metrics=metrics,
        by_element=force_metrics_by_element(forces, true_forces, numbers),
        numbers=numbers,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        energies=energies,
        reference_energies=true_energies,
        forces=forces,
        reference_forces=true_forces,
        stresses=all_stresses,
        reference_stresses=true_stresses,
        wall_s=wall_s,
    )
