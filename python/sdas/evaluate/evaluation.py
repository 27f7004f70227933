"""Run a model over labelled frames, batch by batch, and compare."""

from __future__ import annotations

import time
from collections import defaultdict
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
from sdas.run.fingerprint import model_fingerprint
from sdas_kernels.graph import NeighborGraph


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on B frames with N atoms in all.

    metrics: the numbers of `sdas.evaluate.metrics`, keys carry their units. by_element: force errors per chemical
    symbol. numbers [N], offsets [B+1]: frame i has the atoms offsets[i]:offsets[i + 1]. Energies [B] in eV, forces
    [N, 3] in eV/Å, stresses [B, 3, 3] in eV/Å³ or None. wall_s: seconds, neighbor lists included. model_fingerprint:
    of the model, or None where an earlier version did not note it.
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
    model_fingerprint: str | None

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
        return {**counts, "model_fingerprint": self.model_fingerprint, **self.metrics, "by_element": self.by_element}


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
    found: dict[str, list[np.ndarray]] = defaultdict(list)
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
                for name, values in {**out, **_labels(batch, stress)}.items():
                    found[name].append(values)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    if not found:
        raise SdasError("there are no frames to evaluate on")
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    return _compare(arrays, time.perf_counter() - start, model_fingerprint(model))


def predict(model: torch.nn.Module, frames: Sequence[Frame], *, stress: bool = False) -> dict[str, Array]:
    """energy `[B]` eV, forces `[N, 3]` eV/Å, and stress `[B, 3, 3]` eV/Å³ if wanted, of one batch; float64."""
    parameter = next(model.parameters())
    cutoff = float(model.cutoff)  # type: ignore[arg-type]
    batch = NeighborGraph.batch([_graph(frame, cutoff, parameter.dtype) for frame in frames])
    out = model(batch.to(parameter.device), forces=True, stress=stress)
    wanted = ("energy", "forces", "stress") if stress else ("energy", "forces")
    return {name: out[name].detach().cpu().numpy().astype(np.float64) for name in wanted}


def _graph(frame: Frame, cutoff: float, dtype: torch.dtype) -> NeighborGraph:
    """The graph of a frame, on copies: a tensor must not share a read-only map."""
    cell = None if frame.cell is None else frame.cell.copy()
    return NeighborGraph.build(frame.positions.copy(), frame.numbers.copy(), cutoff, cell, frame.pbc, dtype)


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    stream = iter(frames)
    while batch := list(islice(stream, size)):
        yield batch


def _check_elements(frame: Frame, known: set[int]) -> None:
    strange = sorted(set(np.unique(frame.numbers).tolist()) - known)
    if strange:
        names = ", ".join(chemical_symbols[number] for number in strange)
        species = ", ".join(chemical_symbols[number] for number in sorted(known))
        raise SdasError(
            f"{frame.source}: the model does not know {names}; it was trained on {species}. Train on frames "
            f"with {names}, or leave such frames out"
        )


def _check_finite(out: dict[str, Array], batch: Sequence[Frame]) -> None:
    atoms = np.repeat(np.arange(len(batch)), [len(frame) for frame in batch])
    for name, values in out.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            frame = batch[atoms[row] if name == "forces" else row]
            raise SdasError(f"{frame.source}: the model's {name} is not finite; its training may have diverged")


def _labels(batch: Sequence[Frame], stress: bool) -> dict[str, np.ndarray]:
    """What the frames say, and which atoms they have; nothing else of them is kept."""
    labels = {
        "counts": np.array([len(frame) for frame in batch]),
        "numbers": np.concatenate([frame.numbers for frame in batch]),
        "true energy": np.array([frame.energy for frame in batch], dtype=np.float64),
        "true forces": np.concatenate([frame.forces for frame in batch if frame.forces is not None]),
    }
    if stress:
        labels["true stress"] = np.stack([frame.stress for frame in batch if frame.stress is not None])
    return labels


def _compare(found: dict[str, np.ndarray], wall_s: float, model: str) -> Evaluation:
    metrics: dict[str, float | None] = {
        **energy_metrics(found["energy"], found["true energy"], found["counts"]),
        **force_metrics(found["forces"], found["true forces"]),
    }
    if "stress" in found:
        metrics.update(stress_metrics(found["stress"], found["true stress"]))
    return Evaluation(
        metrics=metrics,
        by_element=force_metrics_by_element(found["forces"], found["true forces"], found["numbers"]),
        numbers=found["numbers"],
        offsets=np.concatenate([[0], np.cumsum(found["counts"])]),
        energies=found["energy"],
        reference_energies=found["true energy"],
        forces=found["forces"],
        reference_forces=found["true forces"],
        stresses=found.get("stress"),
        reference_stresses=found.get("true stress"),
        wall_s=wall_s,
        model_fingerprint=model,
    )
