"""Reader of the LMDB files of OC20: pickled graph records under the keys 0, 1, 2, …, with their number under length.

Stored in Å, eV and eV/Å, periodic along all axes. Records are opened by
:mod:`sdas.data.readers.restricted_pickle`, so neither torch_geometric nor trust in the file is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.electronic_states import CHARGES, SPINS, state_of
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.declared_units import DEFAULT_UNITS
from sdas.data.readers.lmdb_file import LmdbFile
from sdas.data.readers.options import ReadOptions, build_frame
from sdas.data.readers.restricted_pickle import Array, Record, load_record, numbers_in

ENERGY_FIELDS = ("y", "energy")
FORCES_FIELDS = ("force", "forces")
RELAXED = "y_relaxed"
_STRUCTURE = ("pos", "pos_relaxed", "atomic_numbers", "natoms", "cell", "pbc", "fixed", "edge_index", "cell_offsets")


def lmdb_files(path: Path) -> list[Path]:
    """The LMDB files that ``path`` means: itself, or those in the folder."""
    return [path] if path.is_file() else sorted(path.glob("*.lmdb"))


def read_oc20_lmdb(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of an OC20 LMDB file or of all in a folder, in the order of their keys.

    The energy is the field ``y`` or ``energy``. Records of relaxations (IS2RE) hold two: ``energy_key='y_relaxed'``
    gives the relaxed structures, ``energy_key='y_init'`` the initial ones.
    """
    for file in lmdb_files(path):
        for key, data in _entries(file):
            where = f"{file}: record {key}"
            yield _frame(load_record(data, where), where, options)


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    with LmdbFile(path) as file:
        length = file.get(b"length")
        count = file.entries if length is None else _count(load_record(length, f"{path}: length"), path)
        for index in range(count):
            data = file.get(str(index).encode("ascii"))
            if data is None:
                raise DataError(f"{path}: record {index} of {count} is missing; was the file cut short in copying?")
            yield str(index), data


def _count(length: Any, path: Path) -> int:
    number = length.values.reshape(-1)[0] if isinstance(length, Array) and length.values.size == 1 else length
    if not isinstance(number, (int, np.integer)):
        raise DataError(f"{path}: its length must be a number of records, got a {type(number).__name__}")
    return int(number)


def _frame(record: Any, where: str, options: ReadOptions) -> Frame:
    fields = record.fields() if isinstance(record, Record) else record
    if not isinstance(fields, dict):
        raise DataError(f"{where}: holds a {type(fields).__name__}, not a graph record")
    energy_field = _choose(fields, options.energy_key, ENERGY_FIELDS, "energy", where)
    relaxed = energy_field == RELAXED
    forces_field = None if relaxed else _choose(fields, options.forces_key, FORCES_FIELDS, "forces", where)
    for label, name in (("energy", energy_field), ("forces", forces_field)):
        if name is not None:
            options.notes.found(label, name)
    positions = _values(fields, "pos_relaxed" if relaxed else "pos", where)
    numbers = _values(fields, "atomic_numbers", where)
    numbers = numbers.reshape(-1)
    stated = _values(fields, "natoms", where).reshape(-1) if "natoms" in fields else np.array([len(numbers)])
    if stated.tolist() != [len(numbers)]:
        shown = ", ".join(map(str, stated[:3]))
        raise DataError(f"{where}: natoms is {shown} but there are {len(numbers)} atomic numbers")
    cell = _values(fields, "cell", where) if "cell" in fields else None
    if cell is not None and cell.size != 9:
        raise DataError(f"{where}: the cell has {cell.size} numbers, 9 are needed")
    periodic = _values(fields, "pbc", where).reshape(-1) if "pbc" in fields else cell is not None
    told = {str(name): _plain(value) for name, value in fields.items()}
    frame = build_frame(
        where,
        options.units or DEFAULT_UNITS,
        numbers=numbers,
        positions=positions,
        cell=None if cell is None else cell.reshape(3, 3),
        pbc=periodic,
        energy=None if energy_field is None else _values(fields, energy_field, where),
        forces=None if forces_field is None else _values(fields, forces_field, where),
        **state_of(told.items()),
    )
    fixed = _values(fields, "fixed", where).reshape(-1) > 0 if "fixed" in fields else np.zeros(len(frame), dtype=bool)
    if len(fixed) != len(frame):
        raise DataError(f"{where}: fixed has {len(fixed)} entries for {len(frame)} atoms")
    used = {*_STRUCTURE, *CHARGES, *SPINS, energy_field, forces_field}
    options.notes.unused.add(((name, value) for name, value in told.items() if name not in used), len(frame))
    options.notes.states.add(frame)
    return options.check_fixed_atoms(frame, fixed)


def _plain(value: Any) -> Any:
    """The array or number that ``value`` is; of anything else, which may unfold to any size, nothing."""
    return value.values if isinstance(value, Array) else value if isinstance(value, (int, float)) else ""


def _choose(fields: dict[str, Any], asked: str | None, names: tuple[str, ...], label: str, where: str) -> str | None:
    if asked is not None:
        return asked if asked in fields else None
    found = [name for name in names if name in fields]
    if len(found) > 1:
        raise DataError(
            f"{where}: both {' and '.join(found)} could be the {label}; choose by {advice(f'{label}_key', 'NAME')}"
        )
    if not found and label == "energy" and RELAXED in fields:
        raise DataError(
            f"{where}: a relaxation record: choose {advice('energy_key', 'y_relaxed')} for the relaxed structure, or "
            "y_init for the initial one"
        )
    return found[0] if found else None


def _values(fields: dict[str, Any], name: str, where: str) -> NDArray[Any]:
    """Field ``name`` as numbers; lists in it are counted before they are unfolded."""
    if name not in fields:
        raise DataError(f"{where}: no field {name}; it has {', '.join(sorted(fields))}")
    return numbers_in(fields[name], f"{where}: field {name}")
