"""What a reader may be told, and the step from stored arrays to a :class:`~sdas.data.frame.Frame`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.reading_notes import ReadingNotes
from sdas.data.units import Units


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """:class:`sdas.config.reading.ReadingOptions` as readers use them: parsed, and with a place for notes."""

    units: Units | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    weight_key: str | None = None
    type_map: tuple[str, ...] | None = None
    cell: tuple[float, ...] | Literal["none"] | None = None
    ase_format: str | None = None
    skip: str = "nothing"
    allow_zeroed_forces: bool = False
    notes: ReadingNotes = field(default_factory=ReadingNotes)

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
    virial: Any = None,
    weight: float = 1.0,
    config_type: str | None = None,
    charge: float | None = None,
    spin: float | None = None,
) -> Frame:
    """A frame in Å and eV from values in ``units``; raises :class:`DataError` where they do not have the right shape.

    ``numbers`` may be any integers or whole floats [n]; ``pbc`` one value or three; ``energy`` anything of one
    element; a ``cell`` of zeros counts as none; a ``virial`` [3, 3], which needs a cell, gives the stress.
    """
    lattice = None if cell is None else floats(cell, units.length, "cell", source)
    if lattice is not None and not lattice.any():
        lattice = None
    tension = None if stress is None else floats(stress, units.stress, "stress", source)
    if virial is not None and lattice is not None:
        check_unit_of_virial("virial", units, source)
        tension = stress_of_virial(floats(virial, units.energy, "virial", source), lattice, source)
    return Frame(
        numbers=_integers(numbers, source),
        positions=floats(positions, units.length, "positions", source),
        cell=lattice,
        pbc=np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)).copy(),
        energy=None if energy is None else one_float(energy, units.energy, source),
        forces=None if forces is None else floats(forces, units.force, "forces", source),
        stress=tension,
        source=source,
        weight=weight,
        config_type=config_type,
        charge=charge,
        spin=spin,
    )


def stress_of_virial(virial: NDArray[np.float64], cell: NDArray[np.float64], source: str) -> NDArray[np.float64]:
    """The stress in eV/Å³ of a virial −∂E/∂strain [3, 3] in eV: −virial / volume, of a ``cell`` [3, 3] in Å."""
    volume = np.abs(np.linalg.det(cell))
    if volume == 0:
        raise DataError(f"{source}: the cell is singular, so its virial gives no stress")
    return np.asarray(-virial / volume)


def check_unit_of_virial(name: str, asked: Units | None, source: str) -> None:
    """Raise :class:`DataError` if ``asked`` gives a unit of stress where the label is a virial, an energy."""
    if asked is not None and not asked.stress_follows:
        raise DataError(
            f"{source}: {name} is a virial, an energy, but units={asked.name!r} gives a unit of stress; leave that "
            f"unit out, or name a stress by {advice('stress_key', 'NAME')}"
        )


def numbers_of_symbols(symbols: Iterable[Any], what: str) -> NDArray[np.int64]:
    """The atomic numbers of ``symbols``; raises :class:`DataError` saying that ``what`` holds another word."""
    listed = list(symbols)
    unknown = [symbol for symbol in listed if not isinstance(symbol, str) or symbol not in atomic_numbers]
    if unknown:
        raise DataError(f"{what} holds {str(unknown[0])[:40]!r}, which is no chemical element")
    return np.array([atomic_numbers[symbol] for symbol in listed], dtype=np.int64)


def floats(values: Any, factor: float, name: str, source: str) -> NDArray[np.float64]:
    """``values`` times ``factor`` as a new float64 array; raises :class:`DataError` if they are no numbers."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
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


def one_float(value: Any, factor: float, source: str, name: str = "energy") -> float:
    """The one number in ``value`` times ``factor``; raises :class:`DataError` if it is not one number."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise DataError(f"{source}: the {name} must be one number, got {array.dtype.name} of shape {list(array.shape)}")
    return float(array.reshape(())) * factor
