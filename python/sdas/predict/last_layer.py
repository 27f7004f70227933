"""What the last layer of one model knows: features of frames, and how far they are from those that it learned from.

The energy of a frame is nearly linear in the sum φ of the scalars that its readout reads. A linear model with features
F [n, D] of its training frames is as uncertain about φ as

    σ² = α² φᵀ (FᵀF + ς²)⁻¹ φ

(F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018, 2024). α² is set on validation
frames (:mod:`sdas.predict.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.predict.prediction import FloatArray, Prediction

RIDGE = 1e-6
"""ς² over the mean square of the features, where nothing else is said."""


def frame_features(prediction: Prediction, frames: Sequence[Frame], species: Sequence[int]) -> FloatArray:
    """Last-layer scalars summed over the atoms of each element; float64 [B, elements · C].

    ``prediction``: of these frames, with features. ``species``: sorted atomic numbers that the model knows.
    """
    if prediction.features is None:
        raise SdasError("the prediction has no features: ask for them by features=True")
    scalars = prediction.features[:, 0]
    numbers = np.concatenate([frame.numbers for frame in frames])
    owner = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    sums = np.zeros((len(frames), len(species), scalars.shape[1]))
    np.add.at(sums, (owner, np.searchsorted(species, numbers)), scalars)
    return sums.reshape(len(frames), -1)


class LastLayer:
    """The rigidity of a last layer: variances up to the factor α².

    Args:
        training: features F [n, D] of the training frames.
        ridge: ς² over the mean square of F.
    """

    def __init__(self, training: FloatArray, ridge: float = RIDGE) -> None:
        if training.ndim != 2 or len(training) == 0:
            raise SdasError(f"features of training frames must be [n, D] with n >= 1, got {list(training.shape)}")
        scale = float(np.mean(training**2)) or 1.0
        gram = training.T @ training / scale + ridge * np.eye(training.shape[1])
        self._factor = np.linalg.cholesky(gram)
        self._scale = scale

    def variance(self, features: FloatArray) -> FloatArray:
        """φᵀ (FᵀF + ς²)⁻¹ φ of features [B, D]; float64 [B]."""
        solved = np.linalg.solve(self._factor, features.T / self._scale**0.5)
        return np.asarray((solved**2).sum(axis=0))
