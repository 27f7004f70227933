"""Mean squared displacements, and where they become linear in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdas.diffusion.paths import Paths
from sdas.errors import SdasError

EXPONENT_TOLERANCE, IN_A_ROW, GROWTH = 0.1, 3, 1.3
FEWEST_FRAMES, MOST_LAGS = 20, 50


@dataclass(frozen=True, eq=False)
class Displacements:
    """At each lag, frames [L]: the mean squared displacement, Å², its variance, and how many observations behind it are
    independent: atoms times how often the lag fits into the trajectory."""

    lags: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    independent: np.ndarray


def mean_squared_displacement(replicas: Sequence[Paths], chosen: np.ndarray, lags: np.ndarray) -> Displacements:
    """⟨|r(t + lag) − r(t)|²⟩ over the chosen atoms [n] bool, all times t and all replicas."""
    mean, variance, independent = [], [], []
    last = len(replicas[0].positions) - 1
    walks = [each.positions[:, chosen] for each in replicas]
    for lag in lags.tolist():
        squares = np.concatenate([np.square(walk[lag:] - walk[:-lag]).sum(axis=2).ravel() for walk in walks])
        count = int(chosen.sum()) * len(replicas) * last / lag
        mean.append(squares.mean())
        variance.append(squares.var(ddof=1) / count)
        independent.append(count)
    return Displacements(lags, np.array(mean), np.array(variance), np.array(independent))


def exploring_lags(frames: int) -> np.ndarray:
    """Lags that grow by a factor, up to half the trajectory."""
    most = frames // 2
    grown = np.round(GROWTH ** np.arange(np.log(most) / np.log(GROWTH) + 1)).astype(int)
    return np.unique(np.clip(grown, 1, most))


def linear_from(replicas: Sequence[Paths], chosen: np.ndarray, what: str) -> int:
    """The first lag, in frames, from which the displacement grows like time.

    There d ln MSD / d ln t, between a lag and its double, is 1 within 0.1 at three lags in a row.

    Raises SdasError if there is none.
    """
    frames = len(replicas[0].positions)
    lags = exploring_lags(frames)
    lags = lags[2 * lags <= frames // 2]
    once = mean_squared_displacement(replicas, chosen, lags).mean
    twice = mean_squared_displacement(replicas, chosen, 2 * lags).mean
    exponents = np.log2(twice / np.maximum(once, 1e-300))
    linear = np.abs(exponents - 1) <= EXPONENT_TOLERANCE
    for row in range(len(lags) - IN_A_ROW + 1):
        if linear[row : row + IN_A_ROW].all():
            return int(lags[row])
    raise SdasError(
        f"{replicas[0].source}: the mean squared displacement of {what} does not become linear within half of its "
        f"{replicas[0].length_fs:g} fs; at last it grows like time to the power {exponents[-1]:.2f}. It is too short, "
        "or these atoms do not diffuse: run longer, or say by --start where it is linear"
    )
