"""How well a run at constant energy keeps its energy."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

DROPPED = 0.1
"""Fraction of the run, from its start, that is left out."""
MIN_POINTS = 3


@dataclass(frozen=True)
class Drift:
    """A straight line through the total energy per atom.

    drift_mev_per_atom_per_ps: its slope. fluctuation_mev_per_atom: root mean square of what the line leaves.
    from_ps, to_ps: the span that was fitted.
    """

    drift_mev_per_atom_per_ps: float
    fluctuation_mev_per_atom: float
    from_ps: float
    to_ps: float

    def numbers(self) -> dict[str, float]:
        """The fields as a dict."""
        return asdict(self)


def settled(time: np.ndarray) -> np.ndarray:
    """Which of the times `[T]` are after the first tenth of a run: those over which means and drifts are taken."""
    kept: np.ndarray = time >= time[0] + DROPPED * (time[-1] - time[0])
    return kept


def energy_drift(time_fs: ArrayLike, total_energy_ev: ArrayLike, n_atoms: int) -> Drift | None:
    """Least-squares slope of the total energy `[T]` eV over time `[T]` fs, after the first tenth of the run.

    None if fewer than three points are left.
    """
    t = np.asarray(time_fs, dtype=np.float64) / 1000
    energy = np.asarray(total_energy_ev, dtype=np.float64) * 1000 / n_atoms
    if len(t) == 0:
        return None
    kept = settled(t)
    t, energy = t[kept], energy[kept]
    if len(t) < MIN_POINTS or t[0] == t[-1]:
        return None
    centered = t - t.mean()
    slope = float(centered @ (energy - energy.mean()) / (centered @ centered))
    rest = energy - energy.mean() - slope * centered
    return Drift(slope, float(np.sqrt(np.mean(rest**2))), float(t[0]), float(t[-1]))
