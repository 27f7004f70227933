"""Invariants of the last features of atoms, and what can be read from them by a straight line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdas.data import Frame
from sdas.interpret.attention import FloatArray
from sdas.interpret.bonds import angles_of, bonds_of, distances_of
from sdas.interpret.controls import beats
from sdas.predict import predict_batches

FEWEST_FRAMES = 20
PENALTIES = tuple(10.0**k for k in range(-3, 5))
"""Of the straight line, of which the one is taken that tells frames best that are left out one by one."""


def invariants(model: Any, frames: Sequence[Frame], batch_size: int) -> FloatArray:
    """Of every degree of the last features: the scalars, and the lengths |x_l|. `[F, n, lmax + 1, C]`.

    Frames have equally many atoms.
    """
    found = []
    for _, predicted in predict_batches(model, frames, batch_size, features=True):
        x = predicted.features
        assert x is not None
        degrees = [x[:, :1], *(x[:, l * l : (l + 1) ** 2] for l in range(1, round(x.shape[1] ** 0.5)))]
        found.append(np.stack([degrees[0][:, 0], *(np.linalg.norm(d, axis=1) for d in degrees[1:])], axis=1))
    rows = np.concatenate(found)
    return rows.reshape(len(frames), -1, *rows.shape[1:])


def held_out_r2(inputs: FloatArray, target: FloatArray) -> float:
    """R² of ridge regression from `[F, D]` to `[F]`, fitted on the even frames and tested on the odd ones.

    Zero is as good as the mean of the frames that were fitted; below zero is worse.
    """
    fit, test = slice(0, None, 2), slice(1, None, 2)
    mean, scale = inputs[fit].mean(0), inputs[fit].std(0) + 1e-12
    x, z = (inputs[fit] - mean) / scale, (inputs[test] - mean) / scale
    center = target[fit].mean()
    values, vectors = np.linalg.eigh(x @ x.T)
    projected = vectors.T @ (target[fit] - center)

    def left_out(penalty: float) -> float:
        inverse = 1 / (values.clip(0) + penalty)
        residuals = vectors @ (inverse * projected) / (vectors**2 @ inverse)
        return float(residuals @ residuals)

    penalty = min(PENALTIES, key=left_out)
    predicted = center + z @ (x.T @ (vectors @ (projected / (values.clip(0) + penalty))))
    rest, spread = target[test] - predicted, target[test] - center
    return float(1 - (rest @ rest) / (spread @ spread))


def angles_read(
    of_model: FloatArray, of_controls: Sequence[FloatArray], frames: Sequence[Frame]
) -> dict[str, Any] | None:
    """How well the features of an atom tell the bond angles at it, by degree: the mean R² over kinds of angles.

    Features do not tell equal elements apart, so what is read is the mean cosine of the angles at an atom between
    neighbors of two elements. Beside it: random weights, and the distances from that atom to all others. None without
    angles.
    """
    numbers, kinds = frames[0].numbers, defaultdict[tuple[int, int, int], list[tuple[int, int, int]]](list)
    for j, i, k in angles_of(bonds_of(frames[0])):
        ends = sorted((int(numbers[j]), int(numbers[k])))
        kinds[i, ends[0], ends[1]].append((j, i, k))
    if not kinds:
        return None
    targets = {kind: np.mean([_cosines(frames, *each) for each in angles], 0) for kind, angles in kinds.items()}
    distances = np.stack([distances_of(frame) for frame in frames])

    def score(features: FloatArray, degrees: slice) -> float:
        inputs = features[:, :, degrees].reshape(*features.shape[:2], -1)
        return float(np.mean([held_out_r2(inputs[:, kind[0]], cosine) for kind, cosine in targets.items()]))

    baseline = float(np.mean([held_out_r2(np.delete(distances[:, k[0]], k[0], 1), c) for k, c in targets.items()]))
    last = of_model.shape[2]
    degrees = {f"degree {l}": slice(l, l + 1) for l in range(last)} | {"all degrees": slice(0, last)}
    rows = {}
    for name, chosen in degrees.items():
        model, random = score(of_model, chosen), [score(each, chosen) for each in of_controls]
        rows[name] = {"model": model, "random": random, "finding": beats(model, [baseline, *random])}
    return {"kinds": len(kinds), "distances": baseline, "degrees": rows}


def _cosines(frames: Sequence[Frame], j: int, i: int, k: int) -> FloatArray:
    found = []
    for frame in frames:
        a, b = frame.positions[j] - frame.positions[i], frame.positions[k] - frame.positions[i]
        found.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.array(found)
