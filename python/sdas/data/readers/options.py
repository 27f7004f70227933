"""What a reader may be told, and the step from stored arrays to a :class:`~sdas.data.frame.Frame`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.units import Units

DEFAULT_UNITS = Units.parse("eV")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of :func:`sdas.data.read_frames`, parsed; None means that the reader finds out or refuses."""

    units: Units | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    type_map: tuple[str, ...] | None = None
    ase_format: str | None = None

    def agreed_units(self, declared: Units | None, where: str) -> Units | None:
        """The units to convert from, given those that the file itself declares; raises DataError on contradiction."""
        if declared is not None and self.units is not None and not declared.same_as(self.units):
            raise DataError(
                f"{where}: the file declares its units as {declared.name}, but units={self.units.name!r} was asked for"
            )
        return declared or self.units


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


def _floats(values: Any, factor: float, name: str, source: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {name} are not an array of numbers: {error}") from None
    if factor != 1.0:
        array *= factor
    return array


def _integers(values: Any, source: str) -> np.ndarray[Any, np.dtype[np.int64]]:
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
