"""Are forces in eV/Å and stresses in eV/Å³? Their usual sizes tell where the unit is far off.

A bond of 30 eV/Å² at 3000 K pulls with some 3 eV/Å. Of the stress, the virial per atom tells, σ·V/N, since vacuum does
not change it: 0.1 eV in a crystal at 800 K, 5 eV in diamond at 100 GPa, and 15 eV where 1 GPa was read as 1 eV/Å³.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.units import Units

MAX_FORCE = 15.0
"""eV/Å; the largest median over frames of the root mean square of the force components."""
MAX_VIRIAL_PER_ATOM = 10.0
"""eV; the largest median over frames of max |σ| V / N."""
SEVERAL = 8
FEW_FACTOR = 5.0
"""One structure can be far from rest where a set is not: below that many frames so many times more is borne."""
LIKELY_FORCE = (0.02, 5.0)
LIKELY_VIRIAL = (0.002, 3.0)
_REMEDY = f"; if the labels are right all the same, pass {advice('check_units', False)}"


def check_force_unit(frames: Sequence[Frame], source: str) -> None:
    """Raise :class:`DataError` if the forces of ``frames`` are far too large to be in eV/Å; it says what would fit."""
    sizes = [float(np.sqrt((frame.forces**2).mean())) for frame in frames if frame.forces is not None]
    size = float(np.median(sizes)) if sizes else 0.0
    if size > _bound(MAX_FORCE, len(sizes)):
        fitting = _fitting(size, ("kcal/mol", "kJ/mol", "kJ/mol,nm", "meV"), "force", LIKELY_FORCE)
        raise DataError(
            f"{source}: the root mean square of the forces is {size:.3g} eV/Å, beyond what matter bears{fitting}"
            f"{_REMEDY}"
        )


def check_stress_unit(frames: Sequence[Frame], source: str) -> None:
    """Raise :class:`DataError` if the stresses of ``frames`` are far too large for eV/Å³; it says what would fit."""
    sizes = [
        (float(np.abs(frame.stress).max()), float(frame.volume) / len(frame))
        for frame in frames
        if frame.stress is not None and frame.volume is not None
    ]
    virial = float(np.median([stress * volume for stress, volume in sizes])) if sizes else 0.0
    if virial > _bound(MAX_VIRIAL_PER_ATOM, len(sizes)):
        spelled = tuple(f"eV,Å,eV/Å,{unit}" for unit in ("GPa", "kbar", "bar"))
        fitting = _fitting(virial, spelled, "stress", LIKELY_VIRIAL)
        sign = " (a pressure, of the other sign, has a minus before its unit: -kbar)" if fitting else ""
        raise DataError(
            f"{source}: the stresses, in the median {float(np.median([s for s, _ in sizes])):.6g} eV/Å³ large, make a "
            f"virial of {virial:.3g} eV per atom, beyond what matter bears{fitting}{sign}{_REMEDY}"
        )


def _bound(size: float, frames: int) -> float:
    return size if frames >= SEVERAL else FEW_FACTOR * size


def _fitting(size: float, units: Sequence[str], quantity: str, likely: tuple[float, float]) -> str:
    """Those of ``units`` in which a ``size`` that was read in eV and Å would be likely, as advice."""
    fits = [unit for unit in units if likely[0] <= size * getattr(Units.parse(unit), quantity) <= likely[1]]
    return f"; is it units={' or units='.join(repr(unit) for unit in fits)} (--units)?" if fits else ""
