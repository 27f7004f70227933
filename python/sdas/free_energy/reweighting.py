"""Free energies of a reference from frames of a model: the reference gives single energies and moves no atom.

In each bin of the variables (Zwanzig, J. Chem. Phys. 22, 1420 (1954))

    F_ref − F_model = −k_B T ln ⟨w⟩,  w = exp(−(E_ref − E_model) / k_B T),

the mean over frames of the model in that bin. Errors of F_model do not enter the difference. The bias of a run is a
function of the variables, so it does not change which frames a bin holds.

Few frames with large weights say little. The effective number of a bin's frames is (Σ w)² / Σ w² (Kish, Survey Sampling
(1965)); by it the error of independent frames is √(1 / effective − 1 / frames), as Shirts and Chodera have it
(J. Chem. Phys. 129, 124105 (2008)). Frames near in time are not independent. So errors are found by weighting whole
stretches of the dynamics at random (Rubin, Ann. Statist. 9, 130 (1981): a bootstrap in which no bin is left empty).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from sdas.errors import SdasError
from sdas.free_energy.comparison import SamplingError
from sdas.free_energy.landscape import Landscape, nulls

FEWEST = 10
"""Effective frames of a bin, below which nothing is said of it: its error would be 0.3 k_B T and tell little itself."""
RESAMPLES = 1000

Overlap = Literal["good", "too few frames", "partial", "none"]


@dataclass(frozen=True, eq=False)
class Reweighting:
    """The reference less the model in each bin, k_B T.

    difference: F_ref − F_model [bins...], its mean zero over the bins that are known; NaN where frames are too few.
    error: its standard error. interval: of 95 %, [2, bins...].
    frames, effective: that were drawn in a bin, and how many they are worth.
    spread: of E_ref − E_model among the frames of a bin, root mean square.
    inefficiency: variance of the difference over that of independent frames; about 1 where they are far apart in time.
    """

    difference: np.ndarray
    error: np.ndarray
    interval: np.ndarray
    frames: np.ndarray
    effective: np.ndarray
    spread: float
    inefficiency: float | None

    @property
    def known(self) -> np.ndarray:
        """Bins with effective frames enough `[bins...]`."""
        return np.isfinite(self.difference)

    def overlap(self, landscape: Landscape) -> Overlap:
        """Whether frames are worth enough in all, some or none of the bins that the model knows.

        Where those of the others could not be, had each its full weight, there are too few frames to tell.
        """
        ours = self.known[landscape.known]
        if ours.all():
            return "good"
        if (self.frames[landscape.known & ~self.known] < FEWEST).all():
            return "too few frames"
        return "partial" if ours.any() else "none"

    def sampling_error(self) -> SamplingError | None:
        """|F_model − F_ref| over the known bins, and what noise explains of it; None where none is known."""
        if not self.known.any():
            return None
        apart = np.abs(self.difference[self.known])
        noise = float(np.sqrt(2 / np.pi) * self.error[self.known].mean())
        return SamplingError(float(apart.mean()), float(apart.max()), noise, int(self.known.sum()))

    def reference(self, landscape: Landscape) -> tuple[np.ndarray, np.ndarray | None]:
        """F_ref `[bins...]`, k_B T, level with the model's, and its standard error, the model's included."""
        curve, error = landscape.mean + self.difference, landscape.error
        return curve, None if error is None else np.hypot(error, self.error)

    def as_dict(self, landscape: Landscape) -> dict[str, Any]:
        """As JSON holds it; null where it is not known."""
        curve, error = self.reference(landscape)
        return {
            "free_energy_kt": nulls(curve),
            "standard_error_kt": None if error is None else nulls(error),
            "difference_kt": nulls(self.difference),
            "difference_error_kt": nulls(self.error),
            "difference_interval_95_kt": nulls(self.interval),
            "frames": self.frames.tolist(),
            "effective_frames": self.effective.tolist(),
            "fewest_effective_frames": FEWEST,
            "overlap": self.overlap(landscape),
            "spread_kt": self.spread,
            "statistical_inefficiency": self.inefficiency,
        }


def reweight(
    work: np.ndarray, bins: np.ndarray, stretches: np.ndarray, shape: Sequence[int], seed: int = 0
) -> Reweighting:
    """What frames of a model say of a reference.

    Args:
        work: (E_ref − E_model) / k_B T of each frame `[frames]`, up to a constant.
        bins: of each frame, counted through all axes `[frames]`.
        stretches: number of the stretch of the dynamics that a frame is from `[frames]`; they are independent.
        shape: bins of each axis.

    Raises SdasError if there is no frame, or a number is not finite.
    """
    if not len(work) or not np.isfinite(work).all():
        raise SdasError("reweighting wants at least one frame, and finite energies of each")
    size, (_, stretch) = prod(shape), np.unique(stretches, return_inverse=True)
    least = np.full(size, np.inf)
    np.minimum.at(least, bins, work)
    weights = np.exp(least[bins] - work)
    sums, counts = np.zeros((2, stretch.max() + 1, size))
    np.add.at(sums, (stretch, bins), weights)
    np.add.at(counts, (stretch, bins), 1.0)
    frames, many = counts.sum(0), (counts > 0).sum(0)
    squares = np.bincount(bins, weights**2, size)
    effective = np.divide(sums.sum(0) ** 2, squares, out=np.zeros(size), where=squares > 0)
    known = (effective >= FEWEST) & (many > 1)

    def filled(values: np.ndarray) -> np.ndarray:
        """Of all bins, from those of the known ones in the last axis."""
        whole = np.full((*values.shape[:-1], size), np.nan)
        whole[..., known] = values
        return whole.reshape(*values.shape[:-1], *shape)

    deviation = work - (np.bincount(bins, work, size) / np.maximum(frames, 1))[bins]
    difference, error, degrees, inefficiency = np.zeros(0), np.zeros(0), np.zeros(0), None
    if known.any():
        sums, counts, least, degrees = sums[:, known], counts[:, known], least[known], many[known] - 1
        difference = least - np.log(sums.sum(0) / counts.sum(0))
        shares = np.random.default_rng(seed).dirichlet(np.ones(len(sums)), RESAMPLES)
        resampled = least - np.log((shares @ sums) / (shares @ counts))
        widened = np.sqrt((degrees + 2) / degrees)  # shares of m stretches spread by m + 1, not m − 1
        independent = float((1 / effective[known] - 1 / frames[known]).mean())
        variance = float(((widened * resampled.std(0)) ** 2).mean())
        inefficiency = variance / independent if independent > 0 else None
        difference = difference - difference.mean()
        error = widened * (resampled - resampled.mean(1, keepdims=True)).std(0)
    reach = stdtrit(degrees, 0.975) * error
    return Reweighting(
        difference=filled(difference),
        error=filled(error),
        interval=filled(np.stack([difference - reach, difference + reach])),
        frames=frames.reshape(shape).astype(int),
        effective=effective.reshape(shape),
        spread=float(np.sqrt(np.mean(deviation**2))),
        inefficiency=inefficiency,
    )
