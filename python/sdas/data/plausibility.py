"""Are the positions in Å? Distances between nearest neighbors tell, for they vary little across chemistry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from ase.data import covalent_radii

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import FloatArray, Frame
from sdas.data.units import BOHR

MIN_MEDIAN_DISTANCE = 0.5
MAX_MEDIAN_DISTANCE = 6.0
MAX_NM_RATIO = 0.2
MIN_MEDIAN_RATIO = 0.6
MAX_MEDIAN_RATIO = 1.75
"""Nearest distances are 0.7 to 1.4 times the sum of covalent radii in molecules and solids; an Å is 1.89 bohr."""
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
CENTERS = 32
FRAMES_LOOKED_AT = 16

_IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=np.float64)


def nearest_neighbors(frame: Frame, centers: int = CENTERS) -> tuple[FloatArray, FloatArray]:
    """Distance in Å to the nearest atom, and that distance over the sum of the two covalent radii.

    Both float64 [min(n, centers)]; the atoms are taken evenly over the frame. The own images of an atom count as
    neighbors. A frame of one atom without periodicity gives [0] and [0].
    """
    n = len(frame)
    chosen = np.unique(np.linspace(0, n - 1, min(n, centers)).astype(np.int64))
    images = _IMAGES[(np.abs(_IMAGES) <= frame.pbc).all(axis=1)]
    positions, shifts = frame.positions, np.zeros((1, 3))
    if frame.cell is not None and frame.pbc.any():
        fractional = np.linalg.solve(frame.cell.T, positions.T).T
        positions = positions - np.where(frame.pbc, np.floor(fractional), 0.0) @ frame.cell
        shifts = images @ frame.cell
    vectors = positions[None, :, None, :] + shifts[None, None, :, :] - positions[chosen, None, None, :]
    distances = np.linalg.norm(vectors, axis=-1)
    home = int(np.argmin(np.abs(shifts).sum(axis=1)))
    distances[np.arange(len(chosen)), chosen, home] = np.inf
    nearest = distances.min(axis=2)
    partner = nearest.argmin(axis=1)
    distance = nearest[np.arange(len(chosen)), partner]
    radii = covalent_radii[frame.numbers]
    found = np.isfinite(distance)
    return distance[found], (distance / (radii[chosen] + radii[partner]))[found]


def check_length_unit(frames: Sequence[Frame], source: str) -> None:
    """Raise :class:`DataError` if the median nearest distance over some of ``frames`` says that positions are not in Å.

    Noble gases, which do not bind, are left out; without any pair of atoms nothing is concluded.
    """
    some = frames[:: max(1, len(frames) // FRAMES_LOOKED_AT)]
    bound = [frame for frame in some if not np.isin(frame.numbers, NOBLE_GASES).all()]
    measured = [nearest_neighbors(frame) for frame in bound]
    distances = np.concatenate([distance for distance, _ in measured]) if measured else np.empty(0)
    if distances.size == 0:
        return
    median = float(np.median(distances))
    ratio = float(np.median(np.concatenate([ratio for _, ratio in measured])))
    found = f"{source}: the median distance to the nearest atom is {median:.3f} Å, {ratio:.2f} times a covalent bond"
    remedy = f"; if the positions are right all the same, pass {advice('check_units', False)}"
    as_ang, as_nm, as_bohr = (advice("units", f"ENERGY,{length}") for length in ("Å", "nm", "bohr"))
    if ratio < MAX_NM_RATIO:
        raise DataError(f"{found}; read as nm it would be {10 * median:.2f} Å; say so by {as_nm}{remedy}")
    if median < MIN_MEDIAN_DISTANCE or ratio < MIN_MEDIAN_RATIO:
        raise DataError(f"{found}; were they converted from bohr while stored in Å? Say so by {as_ang}{remedy}")
    if median > MAX_MEDIAN_DISTANCE or ratio > MAX_MEDIAN_RATIO:
        raise DataError(f"{found}; read as bohr it would be {BOHR * median:.2f} Å; say so by {as_bohr}{remedy}")
