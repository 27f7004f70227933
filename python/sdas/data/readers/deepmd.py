"""Reader of DeePMD-kit's npy folders: ``type.raw``, ``type_map.raw``, ``set.*/coord.npy`` and labels beside it.

Stored in Å, eV, eV/Å and, for the virial, eV. The virial there is −∂E/∂strain, so the stress is −virial / volume.
The convention is DeePMD-kit's documentation of its data format, "npy" and "mixed type".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame, IntArray
from sdas.data.readers.declared_units import DEFAULT_UNITS
from sdas.data.readers.npy import map_array
from sdas.data.readers.options import ReadOptions, build_frame, numbers_of_symbols

_STRUCTURE = ("coord", "box", "real_atom_types")


def systems(path: Path) -> list[Path]:
    """The system folders (those with a ``type.raw``) at or below ``path``, sorted."""
    return sorted(found.parent for found in path.rglob("type.raw"))


def read_deepmd(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of every system at or below ``path``, in the order of folder, set and frame."""
    found = systems(path)
    if not found:
        raise DataError(f"{path}: no DeePMD system: there is no type.raw in it or below")
    for system in found:
        yield from _read_system(system, options)


def _read_system(system: Path, options: ReadOptions) -> Iterator[Frame]:
    elements = _elements(system, options.type_map)
    types = _read_types(system)
    periodic = not (system / "nopbc").exists()
    sets = sorted(system.glob("set.*"))
    if not sets:
        raise DataError(f"{system}: no set.* folder; raw text files are turned into sets by DeePMD-kit or dpdata")
    for folder in sets:
        yield from _read_set(folder, elements, types, periodic, options)


def _elements(system: Path, given: tuple[str, ...] | None) -> IntArray:
    """Atomic number of each type, from ``given`` or from type_map.raw."""
    path = system / "type_map.raw"
    if given is None and not path.is_file():
        raise DataError(f"{system}: no type_map.raw, so its types have no elements; give {advice('type_map', 'O,H')}")
    symbols = given if given is not None else path.read_text().split()
    return numbers_of_symbols(symbols, f"{system}: the type map")


def _read_types(system: Path) -> IntArray:
    words = (system / "type.raw").read_text().split()
    if not words or not all(word.isdigit() for word in words):
        raise DataError(f"{system / 'type.raw'}: expected one type index per atom")
    return np.array(words, dtype=np.int64)


def _read_set(
    folder: Path, elements: IntArray, types: IntArray, periodic: bool, options: ReadOptions
) -> Iterator[Frame]:
    coordinates = _load(folder, "coord")
    count = len(coordinates)
    cells = _optional(folder, "box", count)
    energies = _label(folder, "energy", "energy", count, options)
    forces = _label(folder, "forces", "force", count, options)
    virials = _label(folder, "stress", "virial", count, options)
    mixed = _optional(folder, "real_atom_types", count)
    if cells is None and periodic:
        raise DataError(f"{folder}: no box.npy; a system without a cell is marked by an empty file nopbc")
    units = options.units or DEFAULT_UNITS
    _note_unused(folder, len(types), count, options)
    for index in range(count):
        source = f"{folder}: frame {index}"
        kinds = types if mixed is None else np.asarray(mixed[index], dtype=np.int64)
        real = kinds >= 0
        if (kinds >= len(elements)).any():
            raise DataError(f"{source}: type {kinds.max()} is beyond the {len(elements)} entries of the type map")
        cell = None if cells is None or not periodic else _shaped(cells[index], (3, 3), "box", source)
        yield build_frame(
            source,
            units,
            numbers=elements[kinds[real]],
            positions=_shaped(coordinates[index], (len(kinds), 3), "coord", source)[real],
            cell=cell,
            pbc=periodic,
            energy=None if energies is None else energies[index],
            forces=None if forces is None else _shaped(forces[index], (len(kinds), 3), "force", source)[real],
            virial=None if virials is None else _shaped(virials[index], (3, 3), "virial", source),
        )


def _note_unused(folder: Path, atoms: int, count: int, options: ReadOptions) -> None:
    labels = {options.energy_key or "energy", options.forces_key or "force", options.stress_key or "virial"}
    for path in sorted(folder.glob("*.npy")):
        if path.stem not in labels and path.stem not in _STRUCTURE:
            options.notes.unused.add([(path.stem, _first_row(folder, path.stem, atoms))], atoms, count)


def _first_row(folder: Path, name: str, atoms: int) -> Any:
    """The first row of an array that is not read, [atoms, 3] where that is its size; nothing if it is no array."""
    try:
        row = _load(folder, name)[0]
    except (DataError, IndexError):
        return ""
    return row.reshape(atoms, 3) if row.size == 3 * atoms else row


def _shaped(row: NDArray[Any], shape: tuple[int, int], name: str, source: str) -> NDArray[np.float64]:
    if row.size != shape[0] * shape[1]:
        raise DataError(f"{source}: {name} has {row.size} numbers where {shape[0]} × {shape[1]} are needed")
    return np.asarray(row, dtype=np.float64).reshape(shape)


def _label(folder: Path, label: str, usual: str, count: int, options: ReadOptions) -> NDArray[Any] | None:
    """The array that was asked for, which must be there, or else ``usual`` if it is there."""
    asked: str | None = getattr(options, f"{label}_key")
    array = _optional(folder, usual, count) if asked is None else _counted(folder, asked, count)
    if array is not None:
        options.notes.found(label, asked or usual, count)
    return array


def _optional(folder: Path, name: str, count: int) -> NDArray[Any] | None:
    return _counted(folder, name, count) if (folder / f"{name}.npy").is_file() else None


def _counted(folder: Path, name: str, count: int) -> NDArray[Any]:
    array = _load(folder, name)
    if len(array) != count:
        raise DataError(f"{folder / name}.npy has {len(array)} rows for {count} frames")
    return array


def _load(folder: Path, name: str) -> NDArray[Any]:
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise DataError(f"{folder}: no {path.name}")
    array = map_array(path)
    if array.ndim < 1:
        raise DataError(f"{path}: holds one number where one row per frame is needed")
    return array
