"""What a reader may be told, and the step from stored arrays to a :class:`~sdas.data.frame.Frame`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.reading_notes import ReadingNotes
from sdas.data.units import Units
from sdas.reading_options import advice

DEFAULT_UNITS = Units.parse("eV")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """:class:`sdas.reading_options.ReadingOptions` as readers use them: parsed, and with a place for notes."""

    units: Units | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    type_map: tuple[str, ...] | None = None
    ase_format: str | None = None
    skip: str = "nothing"
    allow_zeroed_forces: bool = False
    notes: ReadingNotes = field(default_factory=ReadingNotes)

    def agreed_units(self, declared: Units | None, where: str) -> Units | None:
        """The units to convert from, given those that the file itself declares; raises DataError on contradiction."""
        if declared is not None and self.units is not None and not declared.same_as(self.units):
            raise DataError(
                f"{where}: the file declares its units as {declared.name}, but units={self.units.name!r} was asked for"
            )
        return declared or self.units

    def check_fixed_atoms(self, frame: Frame, fixed: NDArray[np.bool_]) -> Frame:
        """Return ``frame`` unless its forces were set to zero on the ``fixed`` atoms (bool [n]) before being stored.

        A program that fixes atoms may write zeros in place of their forces. Such labels are no gradient of the energy.
        """
        if self.allow_zeroed_forces or frame.forces is None or not fixed.any() or fixed.all():
            return frame
        if not frame.forces[fixed].any() and frame.forces[~fixed].any():
            raise DataError(
                f"{frame.source}: the stored forces of its {int(fixed.sum())} fixed atoms are all exactly zero, as if "
                "the constraint had been applied to them; label the frame again, or accept wrong forces by "
                f"{advice('allow_zeroed_forces', True)}"
            )
        return frame


def build_frame(
    source: str,
    units: Units,
    *,
    numbers: Any,
    positions: Any,
    cell: Any = None,
    pbc: Any = False,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
) -> Frame:
    """A frame in Å and eV from values in ``units``; raises :class:`DataError` where they do not have the right shape.

    ``numbers`` may be any integers or whole floats [n]; ``pbc`` one value or three; ``energy`` anything of one
    element; a ``cell`` of zeros counts as none.
    """
    lattice = None if cell is None else _floats(cell, units.length, "cell", source)
    if lattice is not None and not lattice.any():
        lattice = None
    return Frame(
        numbers=_integers(numbers, source),
        positions=_floats(positions, units.length, "positions", source),
        cell=lattice,
        pbc=np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)).copy(),
        energy=None if energy is None else _one_float(energy, units.energy, source),
        forces=None if forces is None else _floats(forces, units.force, "forces", source),
        stress=None if stress is None else _floats(stress, units.stress, "stress", source),
        source=source,
    )


def _floats(values: Any, factor: float, name: str, source: str) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {name} are not an array of numbers: {error}") from None
    if factor != 1.0:
        array *= factor
    return array


def _integers(values: Any, source: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    whole = array.astype(np.int64) if array.dtype.kind in "iuf" and np.isfinite(array).all() else None
    if whole is None or (whole != array).any():
        raise DataError(f"{source}: atomic numbers must be integers, got {array.dtype.name} {array.ravel()[:4]}")
    return whole


def _one_float(value: Any, factor: float, source: str) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise DataError(f"{source}: the energy must be one number, got {array.dtype.name} of shape {list(array.shape)}")
    return float(array.reshape(())) * factor
