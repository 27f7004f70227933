"""Do energies and forces belong together? Close consecutive frames tell, by the trapezoid rule along the step.

For a small step Δr from frame a to frame b, E_b − E_a = −½ (F_a + F_b) · Δr up to third order in Δr. Trajectories and
relaxations have such steps. The slope of the left side over the right is 1 for consistent labels; −1 means gradients
in place of forces, and another number that the units of one of the two are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.units import BOHR, ENERGY_UNITS

MAX_STEP = 0.2
"""Å; the longest move of any atom between two frames that are compared."""
MIN_PAIRS = 4
MIN_COSINE = 0.97
SLOPES = (0.6, 1.6)
"""Slopes that are accepted; real relaxations by two DFT codes gave 0.88 to 1.0."""


def energy_steps(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Energy differences of close consecutive frames, and those that the forces predict; both float64 [pairs], eV."""
    pairs = [
        (b.energy - a.energy, -0.5 * float(((a.forces + b.forces) * (b.positions - a.positions)).sum()))
        for a, b in pairwise(frames)
        if a.energy is not None
        and b.energy is not None
        and a.forces is not None
        and b.forces is not None
        and _close(a, b)
    ]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def check_energy_and_forces(frames: Sequence[Frame], source: str) -> None:
    """Raise :class:`DataError` if close consecutive ``frames`` show that the forces do not fit the energies.

    Says nothing with fewer than 4 such pairs, or where the two sides are not proportional, as with noisy labels.
    """
    energy, work = energy_steps(frames)
    norms = float(np.linalg.norm(energy) * np.linalg.norm(work))
    if len(energy) < MIN_PAIRS or norms == 0 or abs(energy @ work) < MIN_COSINE * norms:
        return
    slope = float(energy @ work / (work @ work))
    if SLOPES[0] <= slope <= SLOPES[1]:
        return
    raise DataError(
        f"{source}: over {len(energy)} small steps the energy changes by {slope:.3g} times what the forces say"
        f"{_likely_cause(slope)}; if the labels are right all the same, pass {advice('check_units', False)}"
    )


def _close(a: Frame, b: Frame) -> bool:
    if not np.array_equal(a.numbers, b.numbers) or (a.cell is None) != (b.cell is None):
        return False
    if a.cell is not None and b.cell is not None and a.pbc.any() and not np.allclose(a.cell, b.cell, atol=1e-6):
        return False
    step = np.abs(b.positions - a.positions).max()
    return bool(0 < step <= MAX_STEP)


def _likely_cause(slope: float) -> str:
    if SLOPES[0] <= -slope <= SLOPES[1]:
        return ": they look like gradients, with the sign of forces reversed"
    causes = {"force per bohr rather than per Å": 1 / BOHR, "force per Å taken as per bohr": BOHR}
    for name, factor in ENERGY_UNITS.items():
        if factor != 1.0:
            causes[f"energies in {name} beside forces in eV/Å"] = 1 / factor
            causes[f"forces in {name}/Å beside energies in eV"] = factor
    cause, factor = min(causes.items(), key=lambda item: abs(np.log(abs(slope) / item[1])))
    return f", as with {cause}" if abs(np.log(abs(slope) / factor)) < 0.15 else ""
