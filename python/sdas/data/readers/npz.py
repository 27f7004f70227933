"""Readers of .npz data sets: MD17 and rMD17 (``coords``, ``energies``, …), and sGDML (``R``, ``E``, ``F``, ``z``).

rMD17 files carry no units and are in kcal/mol and Å. sGDML files may name theirs in ``e_unit`` and ``r_unit``; those
that do not exist in kcal/mol and in eV alike, so the units must then be given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config.reading import advice
from sdas.data.electronic_states import CHARGES, SPINS, may_be_states, states_of_frames
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.label_names import plain_name, unit_of
from sdas.data.readers.declared_units import Declaration, FileUnits
from sdas.data.readers.npz_stream import NpzStream
from sdas.data.readers.options import ReadOptions, build_frame
from sdas.data.units import Units

RMD17_UNITS = Units.parse("kcal/mol")
_QUANTITY = {"energy": "energy", "forces": "force"}
_STRUCTURE = ("unit_cell", "lattice", "pbc")


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the arrays of one convention; ``energy`` and ``forces`` may be absent from a file."""

    numbers: str
    positions: str
    energy: str
    forces: str


RMD17 = Names("nuclear_charges", "coords", "energies", "forces")
SGDML = Names("z", "R", "E", "F")


def recognize(path: Path) -> str | None:
    """``rmd17`` or ``sgdml`` by the names of the arrays, None for another .npz file."""
    with NpzStream(path) as data:
        for name, names in (("rmd17", RMD17), ("sgdml", SGDML)):
            if {names.numbers, names.positions} <= data.names:
                return name
    return None


def read_rmd17(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of an MD17 or rMD17 file: kcal/mol and kcal/mol/Å unless ``units`` says otherwise.

    The ``old_*`` arrays of rMD17, the noisier labels of the original MD17, are read only if named by their keys.
    """
    with _open(path, RMD17) as data:
        units = FileUnits(_declaration(data), options.units, str(path), RMD17_UNITS, options.notes.remarks)
        yield from _frames(data, RMD17, options, units, None, False)


def read_sgdml(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of an sGDML file; without ``e_unit`` and ``r_unit`` inside, ``units`` must be given.

    A ``unit_cell`` ([3, 3] or per frame, rows are the vectors) or ``lattice`` makes the frames periodic along all
    axes unless ``pbc`` says otherwise.
    """
    with _open(path, SGDML) as data:
        units = FileUnits(_declaration(data), options.units, str(path), remarks=options.notes.remarks)
        if units.asked is None and "energy" not in units.declared.by_quantity:
            raise DataError(
                f"{path}: an sGDML file without e_unit does not say its units; give {advice('units', 'kcal/mol')}, "
                "as all sets of sgdml.org are, or another unit"
            )
        cell = _cell(data)
        yield from _frames(data, SGDML, options, units, cell, data.array("pbc") if "pbc" in data.names else True)


@contextmanager
def _open(path: Path, names: Names) -> Iterator[NpzStream]:
    with NpzStream(path) as data:
        missing = {names.numbers, names.positions} - data.names
        if missing:
            has = ", ".join(sorted(data.names)) or "none"
            raise DataError(f"{path}: no array {' nor '.join(sorted(missing))}; the arrays are: {has}")
        yield data


def _declaration(data: NpzStream) -> Declaration:
    return Declaration.found_in({name: data.text(name) for name in data.names if unit_of(name) is not None})


def _cell(data: NpzStream) -> np.ndarray[Any, Any] | None:
    if "unit_cell" in data.names:
        return data.array("unit_cell")
    if "lattice" not in data.names:
        return None
    lattice = data.array("lattice")
    if lattice.dtype.kind != "f" or not np.array_equal(lattice, np.swapaxes(lattice, -1, -2)):
        raise DataError(
            f"{data.path}: whether the rows or the columns of 'lattice' are the vectors differs between versions of "
            "sGDML; store it as 'unit_cell' with the vectors as rows"
        )
    return lattice


def _frames(
    data: NpzStream, names: Names, options: ReadOptions, units: FileUnits, cell: np.ndarray[Any, Any] | None, pbc: Any
) -> Iterator[Frame]:
    shape = data.shape(names.positions)
    if len(shape) != 3 or shape[2] != 3:
        raise DataError(f"{data.path}: {names.positions} must have shape [frames, atoms, 3], got {list(shape)}")
    count = shape[0]
    numbers = data.array(names.numbers)
    here = {"energy": options.energy_key or names.energy, "forces": options.forces_key or names.forces}
    energies = _labels(data, "energy", names.energy, options, count)
    forces = _labels(data, "forces", names.forces, options, count)
    known = units.complete(**{_QUANTITY[label]: name for label, name in here.items() if name in data.names})
    if named := units.named():
        options.notes.units[named] += count
    stored = ((name, data.array(name)) for name in sorted(data.names) if may_be_states(name, data.shape(name), count))
    states = states_of_frames(stored, count)
    _note_unused(data, {names.numbers, names.positions, *here.values()}, count, shape[1], options)
    periodic = cell is not None
    cells: Iterable[Any] = cell if cell is not None and cell.ndim == 3 else repeat(cell)
    for label, value in ((names.numbers, numbers), ("cell", cell)):
        per_frame = value is not None and value.ndim == (2 if label == names.numbers else 3)
        if per_frame and value is not None and len(value) != count:
            raise DataError(f"{data.path}: {label} has {len(value)} rows for {count} frames")
    rows = zip(data.rows(names.positions), energies, forces, cells)  # noqa: B905
    for index, (positions, energy, force, box) in enumerate(rows):
        frame = build_frame(
            f"{data.path}: frame {index}",
            known,
            numbers=numbers[index] if numbers.ndim == 2 else numbers,
            positions=positions,
            cell=box,
            pbc=periodic and pbc,
            energy=energy,
            forces=force,
            charge=float(states["charge"][index]) if "charge" in states else None,
            spin=float(states["spin"][index]) if "spin" in states else None,
        )
        options.notes.states.add(frame)
        yield frame


def _note_unused(data: NpzStream, used: set[str], count: int, atoms: int, options: ReadOptions) -> None:
    for name in sorted(data.names - used - set(_STRUCTURE)):
        if unit_of(name) is None and plain_name(name) not in (*CHARGES, *SPINS):
            shape = data.shape(name)
            per_frame = shape[:1] == (count,)
            row = np.broadcast_to(0.0, shape[1:] if per_frame else ())
            options.notes.unused.add([(name, row if per_frame else "")], atoms, count)


def _labels(data: NpzStream, label: str, usual: str, options: ReadOptions, count: int) -> Iterable[Any]:
    """Rows of the label's array, or endless None where the file has none; a key that was asked for must be there."""
    key: str | None = getattr(options, f"{label}_key")
    name = key or usual
    if name not in data.names and key is None:
        return repeat(None)
    shape = data.shape(name)
    if not shape or shape[0] != count:
        raise DataError(f"{data.path}: {name} has shape {list(shape)}, which does not give one row to {count} frames")
    options.notes.found(label, name, count)
    return data.rows(name)
