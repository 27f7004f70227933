"""Reader of DeePMD-kit's systems: ``type.raw``, ``type_map.raw`` and, in sets, ``coord``, ``box`` and labels.

Sets are folders of .npy files, groups of an HDF5 file, or, without any, the text files ``coord.raw``, ``energy.raw``
and so on. Stored in Å, eV, eV/Å and, for the virial, eV. The virial there is −∂E/∂strain, so the stress is −virial /
volume. The convention is DeePMD-kit's documentation of its data format, "npy", "raw", "hdf5" and "mixed type".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame, IntArray
from sdas.data.readers.declared_units import DEFAULT_UNITS
from sdas.data.readers.deepmd_storage import Folder, FrameSet, Hdf5System, Rows, System
from sdas.data.readers.hdf5_file import Hdf5Group, groups_of, is_hdf5, sound
from sdas.data.readers.options import ReadOptions, build_frame, numbers_of_symbols

_STRUCTURE = ("coord", "box", "real_atom_types")
TYPES = "type.raw"


def systems(path: Path) -> list[Path]:
    """The system folders (those with a ``type.raw``) at or below ``path``, sorted."""
    return sorted(found.parent for found in path.rglob(TYPES))


def is_system(group: Hdf5Group) -> bool:
    """Whether a group of an HDF5 file is a system."""
    return TYPES in group.data


def read_deepmd(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of every system at or below a folder or in an HDF5 file, in the order of system, set and frame."""
    if path.is_file():
        if not is_hdf5(path):
            raise DataError(f"{path}: a system of DeePMD is a folder with {TYPES}, or an HDF5 file")
        yield from sound(_systems_of_file(path, options), path)
        return
    found = systems(path)
    if not found:
        raise DataError(f"{path}: no DeePMD system: there is no {TYPES} in it or below")
    for system in found:
        yield from _read_system(Folder(system), options)


def _systems_of_file(path: Path, options: ReadOptions) -> Iterator[Frame]:
    found = 0
    for group in groups_of(path):
        if is_system(group):
            found += 1
            yield from _read_system(Hdf5System(group), options)
    if not found:
        raise DataError(f"{path}: no DeePMD system: no group of it has a data set {TYPES}")


def _read_system(system: System, options: ReadOptions) -> Iterator[Frame]:
    elements = _elements(system, options.type_map)
    types = _types(system)
    sets = system.sets()
    if not sets:
        raise DataError(f"{system.where}: no set.* and no coord.raw, so it has no frames")
    for part in sets:
        yield from _read_set(part, elements, types, system.periodic, options)


def _elements(system: System, given: tuple[str, ...] | None) -> IntArray:
    """Atomic number of each type, from ``given`` or from type_map.raw."""
    symbols = given if given is not None else system.words("type_map.raw")
    if symbols is None:
        raise DataError(
            f"{system.where}: no type_map.raw, so its types have no elements; give {advice('type_map', 'O,H')}"
        )
    return numbers_of_symbols(symbols, f"{system.where}: the type map")


def _types(system: System) -> IntArray:
    words = system.words(TYPES)
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise DataError(f"{system.where}: {TYPES}: expected one type index per atom")
    return np.array(words, dtype=np.int64)


def _read_set(
    part: FrameSet, elements: IntArray, types: IntArray, periodic: bool, options: ReadOptions
) -> Iterator[Frame]:
    names = part.names()
    if "coord" not in names:
        raise DataError(f"{part.where}: no coord{part.suffix}")
    if "box" not in names and periodic:
        raise DataError(f"{part.where}: no box{part.suffix}; a system without a cell is marked by an empty file nopbc")
    coordinates = part.rows("coord")
    count = len(coordinates)
    used = {
        "energy": _label(part, names, "energy", "energy", count, options),
        "force": _label(part, names, "forces", "force", count, options),
        "virial": _label(part, names, "stress", "virial", count, options),
    }
    stored = [name if name in names else None for name in ("box", "real_atom_types")]
    columns = [_counted(part, name, count) if name else repeat(None) for name in (*stored, *used.values())]
    _note_unused(part, names, {*_STRUCTURE, *used.values()}, len(types), count, options)
    units = options.units or DEFAULT_UNITS
    rows = zip(coordinates, *columns)  # noqa: B905
    for index, (place, box, mixed, energy, force, virial) in enumerate(rows):
        source = f"{part.where}: frame {index}"
        kinds = types if mixed is None else np.asarray(mixed, dtype=np.int64)
        real = kinds >= 0
        if (kinds >= len(elements)).any():
            raise DataError(f"{source}: type {kinds.max()} is beyond the {len(elements)} entries of the type map")
        yield build_frame(
            source,
            units,
            numbers=elements[kinds[real]],
            positions=_shaped(place, (len(kinds), 3), "coord", source)[real],
            cell=None if box is None or not periodic else _shaped(box, (3, 3), "box", source),
            pbc=periodic,
            energy=energy,
            forces=None if force is None else _shaped(force, (len(kinds), 3), "force", source)[real],
            virial=None if virial is None else _shaped(virial, (3, 3), "virial", source),
        )


def _note_unused(
    part: FrameSet, names: list[str], used: set[str | None], atoms: int, count: int, options: ReadOptions
) -> None:
    for name in names:
        if name not in used:
            options.notes.unused.add([(name, _first_row(part, name, atoms))], atoms, count)


def _first_row(part: FrameSet, name: str, atoms: int) -> Any:
    """The first row of an array that is not read, [atoms, 3] where that is its size; nothing if it is no array."""
    try:
        row = np.asarray(next(iter(part.rows(name)), ""))
    except DataError:
        return ""
    return row.reshape(atoms, 3) if row.size == 3 * atoms else row


def _shaped(row: NDArray[Any], shape: tuple[int, int], name: str, source: str) -> NDArray[np.float64]:
    if row.size != shape[0] * shape[1]:
        raise DataError(f"{source}: {name} has {row.size} numbers where {shape[0]} × {shape[1]} are needed")
    return np.asarray(row, dtype=np.float64).reshape(shape)


def _label(part: FrameSet, names: list[str], label: str, usual: str, count: int, options: ReadOptions) -> str | None:
    """The name of the array that was asked for, which must be there, or else ``usual`` if it is there."""
    asked: str | None = getattr(options, f"{label}_key")
    if asked is not None and asked not in names:
        raise DataError(f"{part.where}: no {asked}{part.suffix}")
    name = asked or (usual if usual in names else None)
    if name is not None:
        options.notes.found(label, name, count)
    return name


def _counted(part: FrameSet, name: str, count: int) -> Rows:
    rows = part.rows(name)
    if len(rows) != count:
        raise DataError(f"{part.where}/{name}{part.suffix} has {len(rows)} rows for {count} frames")
    return rows
