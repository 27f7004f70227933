"""Standard deviations that hold: scaled on frames whose errors are known, and judged on others.

    calibration = Calibration.of(errors, deviations)
    low, high = value - calibration.width(deviations), value + calibration.width(deviations)

A deviation σ of an ensemble is too small, and by about one factor everywhere. The conformal factor at a level is the
quantile of |error|/σ over n known errors, at the place ⌈(n + 1)·level⌉: an interval value ± factor·σ then holds a new
error of the same kind with that probability at least (V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a
Random World, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdas.errors import SdasError
from sdas.predict.prediction import FloatArray

LEVEL = 0.95
LEVELS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Of a reliability plot."""
SMALLEST = 1e-12
"""Deviations below are taken as this, in the unit of the errors."""


@dataclass(frozen=True)
class Calibration:
    """factors: by which a deviation is multiplied for an interval, one for each of :data:`LEVELS`.

    scale: by which it is multiplied to be the root mean square error of its kind. count: errors that it is made of.
    """

    factors: tuple[float, ...]
    scale: float
    count: int

    @classmethod
    def of(cls, errors: FloatArray, deviations: FloatArray) -> Calibration:
        """Made of errors whose deviations were told, arrays of one shape.

        Raises :class:`SdasError` for fewer errors than the highest level needs, 19.
        """
        ratios = np.sort(_ratios(errors, deviations))
        count = len(ratios)
        if math.ceil((count + 1) * LEVELS[-1]) > count:
            raise SdasError(f"a calibration needs at least 19 errors, got {count}")
        places = [math.ceil((count + 1) * level) - 1 for level in LEVELS]
        return cls(tuple(float(ratios[place]) for place in places), float(np.sqrt(np.mean(ratios**2))), count)

    def width(self, deviations: FloatArray, level: float = LEVEL) -> FloatArray:
        """Half the interval that holds an error with probability ``level``, one of :data:`LEVELS`."""
        return np.asarray(self.factors[LEVELS.index(level)] * np.maximum(deviations, SMALLEST))

    def judged(self, errors: FloatArray, deviations: FloatArray) -> dict[str, Any]:
        """What it is worth on other errors, as JSON holds it.

        coverage: the part of errors within the interval of 95 %. reliability: the same of every level of
        :data:`LEVELS`. sharpness: mean half of the interval of 95 %. nll: mean negative logarithm of a normal density
        with the scaled deviations, in nats. rmse: of the errors. count: errors.
        """
        ratios = _ratios(errors, deviations)
        sigma = self.scale * np.maximum(np.ravel(deviations), SMALLEST)
        error = np.ravel(errors)
        return {
            "coverage": float(np.mean(ratios <= self.factors[LEVELS.index(LEVEL)])),
            "reliability": [float(np.mean(ratios <= factor)) for factor in self.factors],
            "sharpness": float(np.mean(self.width(np.ravel(deviations)))),
            "nll": float(np.mean(0.5 * np.log(2 * np.pi * sigma**2) + 0.5 * (error / sigma) ** 2)),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "count": len(ratios),
        }


def _ratios(errors: FloatArray, deviations: FloatArray) -> FloatArray:
    if np.shape(errors) != np.shape(deviations):
        raise SdasError(f"errors {list(np.shape(errors))} and deviations {list(np.shape(deviations))} differ in shape")
    return np.asarray(np.abs(np.ravel(errors)) / np.maximum(np.ravel(deviations), SMALLEST))
