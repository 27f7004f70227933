"""Run a model over labelled frames, batch by batch, and compare."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sdas.data import Frame, check_frame
from sdas.errors import SdasError
from sdas.evaluate.metrics import Array, energy_metrics, force_metrics, force_metrics_by_element, stress_metrics
from sdas.predict import predict_batches
from sdas.run.fingerprint import model_fingerprint
from sdas_kernels import subnormals


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
    require = ("energy", "forces", "stress") if stress else ("energy", "forces")
    total = len(frames) if isinstance(frames, Sequence) else None
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    start = time.perf_counter()
    checked = (check_frame(frame, require) for frame in frames)
    with subnormals.as_zeros(), tqdm(total=total, desc="evaluate", unit="frame", disable=not progress) as bar:
        for batch, predicted in predict_batches(model, checked, batch_size, stress=stress):
            out = {"energy": predicted.energy, "forces": predicted.forces}
            if predicted.stress is not None:
                out["stress"] = predicted.stress
            for name, values in {**out, **_labels(batch, stress)}.items():
                found[name].append(values)
            bar.update(len(batch))
    if not found:
        raise SdasError("there are no frames to evaluate on")
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    return _compare(arrays, time.perf_counter() - start, model_fingerprint(model))


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
