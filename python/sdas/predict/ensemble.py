"""What several models say of the same frames: their mean, and how far they are apart.

σ²(x) = 1/M Σ_m (f_m(x) − f̄(x))²        of the energy, and of the force on each atom
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.predict.prediction import FloatArray, Prediction, predict_batches


@dataclass(frozen=True, eq=False)
class EnsemblePrediction:
    """What M models say of B frames with N atoms in all; float64.

    energy [B]: eV, and forces [N, 3]: eV/Å, of the mean. energy_variance [B]: σ² of the energy, eV². force_variance
    [N]: σ² of the force on each atom, the mean of its three components, (eV/Å)². offsets [B + 1]: the first atom of
    each frame.
    """

    energy: FloatArray
    forces: FloatArray
    energy_variance: FloatArray
    force_variance: FloatArray
    offsets: np.ndarray

    @property
    def mean_force_variance(self) -> FloatArray:
        """Of each frame the mean over its atoms, (eV/Å)²; [B]."""
        return np.add.reduceat(self.force_variance, self.offsets[:-1]) / np.diff(self.offsets)

    @property
    def largest_force_variance(self) -> FloatArray:
        """Of each frame that of its most uncertain atom, (eV/Å)²; [B]."""
        return np.maximum.reduceat(self.force_variance, self.offsets[:-1])


def combine(predictions: Sequence[Prediction], sizes: Sequence[int]) -> EnsemblePrediction:
    """Mean and variance of the predictions of M models for the same frames, which have ``sizes`` atoms.

    The variance is that over the M models, divided by M, as published; of one model it is zero.
    """
    if not predictions:
        raise SdasError("an ensemble needs at least one model")
    energies = np.stack([each.energy for each in predictions])
    forces = np.stack([each.forces for each in predictions])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return EnsemblePrediction(
        energies.mean(axis=0), forces.mean(axis=0), energies.var(axis=0), forces.var(axis=0).mean(axis=1), offsets
    )


def predict_ensemble(
    models: Sequence[torch.nn.Module], frames: Iterable[Frame], batch_size: int = 32
) -> Iterator[tuple[list[Frame], EnsemblePrediction]]:
    """Batches of a stream of frames, each with the predictions of the models together.

    Raises:
        SdasError: as :func:`sdas.predict.predict`, or there is no model.
    """
    if not models:
        raise SdasError("an ensemble needs at least one model")
    first, *others = models
    for batch, prediction in predict_batches(first, frames, batch_size):
        beside = [next(predict_batches(model, batch, len(batch)))[1] for model in others]
        yield batch, combine([prediction, *beside], [len(frame) for frame in batch])
