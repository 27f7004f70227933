"""The diffusion constant with its uncertainty."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from sdas.diffusion.displacements import (
    FEWEST_FRAMES,
    MOST_LAGS,
    Displacements,
    exploring_lags,
    linear_from,
    mean_squared_displacement,
)
from sdas.diffusion.paths import Paths
from sdas.errors import SdasError

SHORTEST = 10
"""Times the lag from which displacements are linear, that a trajectory must last."""
WALKERS = 16
"""Of the Markov chain, each with 500 steps to begin with and 1000 that count."""
INTERVAL = (2.5, 97.5)
"""Percentiles of a credible interval."""


@dataclass(frozen=True, eq=False)
class Diffusion:
    """D of one element, Å²/ps (1 Å²/ps = 10⁻⁸ m²/s = 10⁻⁴ cm²/s).

    samples: of its posterior. start_fs: the lag from which displacements were taken. lags_fs, msd, msd_sigma: what was
    measured, Å². intercept: of the fitted line, Å². cell: Å.
    """

    element: str
    samples: np.ndarray
    intercept: float
    start_fs: float
    length_fs: float
    atoms: int
    replicas: int
    lags_fs: np.ndarray
    msd: np.ndarray
    msd_sigma: np.ndarray
    cell: np.ndarray

    @property
    def mean(self) -> float:
        """Å²/ps."""
        return float(self.samples.mean())

    @property
    def sigma(self) -> float:
        """Standard deviation, Å²/ps."""
        return float(self.samples.std())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % credible, Å²/ps."""
        low, high = np.percentile(self.samples, INTERVAL)
        return float(low), float(high)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "element": self.element,
            "diffusion_ang2_per_ps": self.mean,
            "sigma_ang2_per_ps": self.sigma,
            "interval_95_ang2_per_ps": list(self.interval),
            "intercept_ang2": self.intercept,
            "start_fs": self.start_fs,
            "length_fs": self.length_fs,
            "atoms": self.atoms,
            "replicas": self.replicas,
            "lags_fs": self.lags_fs.tolist(),
            "msd_ang2": self.msd.tolist(),
            "msd_sigma_ang2": self.msd_sigma.tolist(),
        }


def diffusion(replicas: Sequence[Paths], element: str, start_fs: float | None = None, seed: int = 0) -> Diffusion:
    """The self-diffusion constant of an element: the slope of its mean squared displacement over 6.

    The slope is estimated by kinisi (McCluskey, Squires, Dunn, Coles and Morgan, J. Chem. Theory Comput. 2024,
    10.1021/acs.jctc.4c01249): by Bayesian regression with the covariance of displacements that overlap in time.

    Args:
        replicas: independent trajectories of the same atoms.
        element: its symbol.
        start_fs: the lag from which displacements are linear in time; by default found from their growth.
        seed: of the samples of the posterior.

    Raises:
        SdasError: the trajectory is too short, lacks the element, or its displacements do not become linear.
    """
    first = replicas[0]
    chosen = first.numbers == _number(element, first)
    frames, what = len(first.positions), f"{element} atoms"
    if frames < FEWEST_FRAMES:
        raise SdasError(f"{first.source}: {frames} frames are too few; wants {FEWEST_FRAMES} at least, better hundreds")
    if start_fs is not None and not 0 < start_fs <= first.length_fs / 4:
        raise SdasError(f"displacements must start within a quarter of {first.length_fs:g} fs, got {start_fs:g} fs")
    start = linear_from(replicas, chosen, what) if start_fs is None else max(1, round(start_fs / first.interval_fs))
    if start_fs is None and start * SHORTEST > frames - 1:
        raise SdasError(
            f"{first.source}: too short: displacements of {what} are linear from {start * first.interval_fs:g} fs on; "
            f"wants {SHORTEST} times that, has {first.length_fs:g} fs: run longer"
        )
    lags = np.unique(np.linspace(start, frames // 2, MOST_LAGS).astype(int))
    found = mean_squared_displacement(replicas, chosen, lags)
    slopes, intercept = _regression(found, first.interval_fs / 1000, seed)
    shown = mean_squared_displacement(replicas, chosen, np.union1d(lags, exploring_lags(frames)))
    return Diffusion(
        element=element,
        samples=slopes / 6,
        intercept=intercept,
        start_fs=float(start * first.interval_fs),
        length_fs=first.length_fs,
        atoms=int(chosen.sum()),
        replicas=len(replicas),
        lags_fs=shown.lags * first.interval_fs,
        msd=shown.mean,
        msd_sigma=np.sqrt(shown.variance),
        cell=first.cell,
    )


def elements_of(replicas: Sequence[Paths], chosen: Sequence[str] = ()) -> list[str]:
    """The elements asked for, or all; raises SdasError for one that is not there."""
    for element in chosen:
        _number(element, replicas[0])
    return list(chosen) or [chemical_symbols[number] for number in np.unique(replicas[0].numbers)]


def _number(element: str, paths: Paths) -> int:
    number = atomic_numbers.get(element)
    if number is None or not (paths.numbers == number).any():
        present = ", ".join(chemical_symbols[each] for each in np.unique(paths.numbers))
        raise SdasError(f"{paths.source}: holds no {element}; there are: {present}")
    return number


def _regression(found: Displacements, interval_ps: float, seed: int) -> tuple[np.ndarray, float]:
    """Samples of the slope, Å²/ps, and the mean intercept, Å², by kinisi."""
    try:
        import scipp
        from kinisi.diffusion import Diffusion as Regression
    except ImportError:
        raise SdasError("diffusion constants need kinisi: pip install 'sdas-kernels[md]'") from None

    def over_lags(values: np.ndarray, **more: Any) -> Any:
        return scipp.array(dims=["time interval"], values=values, **more)

    times = over_lags(found.lags * interval_ps, unit="ps")
    data = scipp.DataArray(
        over_lags(found.mean, variances=found.variance, unit="angstrom**2"),
        coords={"time interval": times, "n_samples": over_lags(found.independent)},
    )
    regression = Regression(scipp.DataGroup({"da": data, "dimensionality": 3 * scipp.units.dimensionless}))
    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():  # kinisi draws from NumPy's global generator
            warnings.simplefilter("ignore")
            np.random.seed(seed)  # noqa: NPY002
            regression.bayesian_regression(start_dt=times[0], n_walkers=WALKERS, progress=False)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return np.array(regression.gradient.values), float(np.mean(regression.intercept.values))
