"""What an ensemble is worth: errors, and how far its uncertainties hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.active import Measure
from sdas.data import Frame
from sdas.errors import SdasError
from sdas.evaluate.metrics import energy_metrics, force_metrics
from sdas.predict import Calibration, EnsemblePrediction

FloatArray = NDArray[np.float64]
TOLD = ("force_mae_mev_per_ang", "force_rmse_mev_per_ang", "energy_mae_mev", "energy_rmse_mev")


def scores_of(measure: Measure, prediction: EnsemblePrediction) -> FloatArray:
    """The uncertainty σ² of each frame by the measure that is set: (eV/Å)², or eV² of energies."""
    if measure == "forces":
        return prediction.mean_force_variance
    return prediction.largest_force_variance if measure == "largest-force" else prediction.energy_variance


def errors_of(prediction: EnsemblePrediction, frames: Sequence[Frame]) -> dict[str, Any]:
    """Errors of the mean of the ensemble on the labels that frames have, in meV and meV/Å; empty without frames."""
    if not frames:
        return {}
    energies, forces = _references(frames)
    known, with_forces = np.isfinite(energies), np.isfinite(forces).all(axis=1)
    counts = np.array([len(frame) for frame in frames])
    told = {
        **energy_metrics(prediction.energy[known], energies[known], counts[known]),
        **force_metrics(prediction.forces[with_forces], forces[with_forces]),
    }
    return {"frames": len(frames), **{name: told[name] for name in TOLD}}


class Uncertainty:
    """The deviations σ that a measure tells, against the errors that they stand for.

    Those are force components, each with the deviation of its atom; or energies, where those are measured.
    """

    def __init__(self, measure: Measure) -> None:
        self.of_forces = measure in ("forces", "largest-force")
        self.unit = "eV/Å" if self.of_forces else "eV"

    def calibration(self, prediction: EnsemblePrediction, frames: Sequence[Frame]) -> Calibration | None:
        """Made of ``frames``; None where these have too few labels."""
        errors, deviations = self._errors(prediction, frames)
        try:
            return Calibration.of(errors, deviations)
        except SdasError:
            return None

    def judged(
        self, calibration: Calibration | None, prediction: EnsemblePrediction, frames: Sequence[Frame]
    ) -> dict[str, Any] | None:
        """What a calibration is worth on ``frames``; None without one, or without labels."""
        errors, deviations = self._errors(prediction, frames)
        return calibration.judged(errors, deviations) if calibration is not None and len(errors) else None

    def cross_judged(self, prediction: EnsemblePrediction, frames: Sequence[Frame]) -> dict[str, Any] | None:
        """What a calibration made of every other one of ``frames`` is worth on those between them."""
        even, odd = range(0, len(frames), 2), range(1, len(frames), 2)
        made = self.calibration(part_of(prediction, even), [frames[row] for row in even])
        return self.judged(made, part_of(prediction, odd), [frames[row] for row in odd])

    def _errors(self, prediction: EnsemblePrediction, frames: Sequence[Frame]) -> tuple[FloatArray, FloatArray]:
        """Errors where there are labels, and their deviations, both flat."""
        energies, forces = _references(frames)
        if self.of_forces:
            errors = prediction.forces - forces
            deviations = np.broadcast_to(np.sqrt(prediction.force_variance)[:, None], forces.shape)
        else:
            errors, deviations = prediction.energy - energies, np.sqrt(prediction.energy_variance)
        known = np.isfinite(errors)
        return errors[known], deviations[known]


def part_of(prediction: EnsemblePrediction, rows: Sequence[int]) -> EnsemblePrediction:
    """The prediction of some of its frames, in the order of ``rows``."""
    chosen, offsets = list(rows), prediction.offsets
    atoms = [np.arange(offsets[row], offsets[row + 1]) for row in chosen]
    of_atoms = np.concatenate([*atoms, np.zeros(0)]).astype(np.int64)
    return EnsemblePrediction(
        prediction.energy[chosen],
        prediction.forces[of_atoms],
        prediction.energy_variance[chosen],
        prediction.force_variance[of_atoms],
        np.cumsum([0, *(len(each) for each in atoms)]),
    )


def _references(frames: Sequence[Frame]) -> tuple[FloatArray, FloatArray]:
    """Energies [B] and forces [N, 3], NaN where there is no label."""
    energies = [np.nan if frame.energy is None else frame.energy for frame in frames]
    forces = [np.full((len(frame), 3), np.nan) if frame.forces is None else frame.forces for frame in frames]
    return np.array(energies, dtype=np.float64), np.concatenate([*forces, np.zeros((0, 3))])
