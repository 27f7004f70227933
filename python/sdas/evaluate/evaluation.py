"""Run a model over labelled frames, batch by batch, and compare."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sdas.data import Frame, check_frame
from sdas.data.electronic_states import one_state_each
from sdas.data.frame import check_labelled
from sdas.data.graphs import knows_states
from sdas.errors import SdasError
from sdas.evaluate.metrics import Array, energy_metrics, force_metrics, force_metrics_by_element, stress_metrics
from sdas.predict import predict_batches
from sdas.run.fingerprint import model_fingerprint
from sdas_kernels import subnormals

UNNAMED = "without a name"
"""Frames without a `config_type`, where others have one."""
OF_ATOMS = ("numbers", "forces", "true forces")
"""What is found of atoms; all else is of frames."""


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on B frames with N atoms in all.

    metrics: the numbers of `sdas.evaluate.metrics`, keys carry their units; energy_frames, force_frames and, if there
    are stresses, stress_frames say how many frames have the label. by_element: force errors per chemical symbol.
    by_config_type, by_file: metrics of the frames of a kind and of a file, with n_frames and n_atoms; empty where
    nothing tells them. numbers [N], offsets [B+1]: frame i has the atoms offsets[i]:offsets[i + 1]. Energies [B] in eV,
    forces [N, 3] in eV/Å, stresses [B, 3, 3] in eV/Å³ or None if no frame has one; NaN stands for a label that a frame
    has not, and for a stress that was not asked for. wall_s: seconds, neighbor lists included. model_fingerprint: of
    the model, or None where an earlier version did not note it.
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
    by_config_type: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_file: dict[str, dict[str, Any]] = field(default_factory=dict)

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
        groups = {"by_element": self.by_element, "by_config_type": self.by_config_type, "by_file": self.by_file}
        return {**counts, "model_fingerprint": self.model_fingerprint, **self.metrics, **groups}

    def by(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """n_frames, n_atoms and metrics of the frames of each name; `names` [B] says which frame has which."""
        found, first, places, counts = np.unique(
            np.array(names), return_index=True, return_inverse=True, return_counts=True
        )
        groups = np.split(np.argsort(places, kind="stable"), np.cumsum(counts)[:-1])
        rows = {}
        for k in np.argsort(first).tolist():
            atoms = int(np.diff(self.offsets)[groups[k]].sum())
            rows[str(found[k])] = {"n_frames": len(groups[k]), "n_atoms": atoms, **self.errors_of(groups[k])}
        return rows

    def errors_of(self, frames: NDArray[np.int64]) -> dict[str, float | None]:
        """Metrics of the frames of these indices, in the labels that they have."""
        counts = np.diff(self.offsets)[frames]
        atoms = _atoms_of(frames, self.offsets)
        energy = np.isfinite(self.reference_energies[frames])
        forces = np.isfinite(self.reference_forces[self.offsets[frames], 0])
        known = atoms[np.repeat(forces, counts)]
        with_energy = frames[energy]
        metrics: dict[str, float | None] = {
            "energy_frames": len(with_energy),
            **energy_metrics(self.energies[with_energy], self.reference_energies[with_energy], counts[energy]),
            "force_frames": int(forces.sum()),
            **force_metrics(self.forces[known], self.reference_forces[known]),
        }
        if self.stresses is not None and self.reference_stresses is not None:
            stress = frames[np.isfinite(self.reference_stresses[frames, 0, 0])]
            errors = stress_metrics(self.stresses[stress], self.reference_stresses[stress])
            metrics |= {"stress_frames": len(stress), **errors}
        return metrics


def evaluate(
    model: torch.nn.Module, frames: Iterable[Frame], batch_size: int = 16, *, progress: bool = False
) -> Evaluation:
    """Errors of `model` on `frames`, which are read as a stream.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or anything with its call, `species` and `cutoff`. It is left in the mode
            (train or eval) in which it came; evaluation itself runs in eval mode.
        frames: labelled frames. Each is compared in the labels that it has: energy, forces, stress.
        batch_size: frames per call of the model.
        progress: show a bar on stderr.

    Raises:
        SdasError: no frames, an element that the model does not know, or a model that returns non-finite numbers.
        DataError: a frame has no label, or holds values that make no sense.
    """
    total = len(frames) if isinstance(frames, Sequence) else None
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    start = time.perf_counter()
    checked = (check_labelled(check_frame(frame)) for frame in frames)
    told_apart = checked if knows_states(model) else one_state_each(checked)
    with (
        subnormals.as_zeros(),
        tqdm(total=total, desc="evaluate", unit="frame", disable=None if progress else True) as bar,
    ):
        for alike in _batches_alike(told_apart, batch_size):
            places, batch = zip(*alike, strict=True)
            ((_, predicted),) = predict_batches(model, batch, batch_size, stress=batch[0].stress is not None)
            none = np.full((len(batch), 3, 3), np.nan)
            out = {"places": np.array(places), "energy": predicted.energy, "forces": predicted.forces}
            out["stress"] = none if predicted.stress is None else predicted.stress
            for name, values in {**out, **_labels(batch)}.items():
                found[name].append(values)
            bar.update(len(batch))
    if not found:
        raise SdasError("there are no frames to evaluate on")
    arrays = _in_order({name: np.concatenate(parts) for name, parts in found.items()})
    return _compare(arrays, time.perf_counter() - start, model_fingerprint(model))


def _batches_alike(frames: Iterable[Frame], size: int) -> Iterator[list[tuple[int, Frame]]]:
    """Batches of a stream of frames, each with its place in it, of which all have a stress or all have none.

    A model cannot give the stress of a frame without a cell, and need not give one that is compared with nothing.
    """
    waiting: dict[bool, list[tuple[int, Frame]]] = {True: [], False: []}
    for place, frame in enumerate(frames):
        alike = waiting[frame.stress is not None]
        alike.append((place, frame))
        if len(alike) >= size:
            yield alike.copy()
            alike.clear()
    yield from filter(None, waiting.values())


def _in_order(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was found batch by batch, in the order of the frames."""
    frames = np.argsort(found.pop("places"))
    atoms = _atoms_of(frames, _offsets(found["counts"]))
    return {name: values[atoms if name in OF_ATOMS else frames] for name, values in found.items()}


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first atom of each frame [B], and the number of atoms."""
    return np.concatenate([[0], np.cumsum(counts)])


def _atoms_of(frames: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the atoms of these frames, one frame after the other."""
    counts = np.diff(offsets)[frames]
    return np.repeat(offsets[frames] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())


def _labels(batch: Sequence[Frame]) -> dict[str, np.ndarray]:
    """What the frames say, NaN where they do not, their kinds, and which atoms they have; nothing else is kept."""
    return {
        "counts": np.array([len(frame) for frame in batch]),
        "numbers": np.concatenate([frame.numbers for frame in batch]),
        "true energy": np.array([np.nan if frame.energy is None else frame.energy for frame in batch]),
        "true forces": np.concatenate([_or_nan(frame.forces, len(frame)) for frame in batch]),
        "true stress": np.stack([_or_nan(frame.stress, 3) for frame in batch]),
        "names": np.array([frame.config_type or UNNAMED for frame in batch]),
    }


def _or_nan(values: Array | None, rows: int) -> Array:
    return np.full((rows, 3), np.nan) if values is None else values


def _compare(found: dict[str, np.ndarray], wall_s: float, model: str) -> Evaluation:
    stresses = bool(np.isfinite(found["true stress"]).any())
    plain = Evaluation(
        metrics={},
        by_element={},
        numbers=found["numbers"],
        offsets=_offsets(found["counts"]),
        energies=found["energy"],
        reference_energies=found["true energy"],
        forces=found["forces"],
        reference_forces=found["true forces"],
        stresses=found["stress"] if stresses else None,
        reference_stresses=found["true stress"] if stresses else None,
        wall_s=wall_s,
        model_fingerprint=model,
    )
    known = np.isfinite(plain.reference_forces[:, 0])
    return replace(
        plain,
        metrics=plain.errors_of(np.arange(plain.n_frames)),
        by_element=force_metrics_by_element(plain.forces[known], plain.reference_forces[known], plain.numbers[known]),
        by_config_type={} if (found["names"] == UNNAMED).all() else plain.by(found["names"].tolist()),
    )
