"""Reader of the configuration files of MLIP (moment tensor potentials): ``BEGIN_CFG`` … ``END_CFG``.

Stored in Å, eV and eV/Å. ``PlusStress`` is the virial −∂E/∂strain in eV, its components named in the line above them,
so the stress is −PlusStress / volume. Types count from 0, and only the type map knows their elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.options import ReadOptions, numbers_of_symbols
from sdas.data.readers.structures import frames_of
from sdas.data.readers.text_lines import Lines

BEGIN, END = "BEGIN_CFG", "END_CFG"
_POSITIONS = {"cartes": ("cartes_x", "cartes_y", "cartes_z"), "direct": ("direct_x", "direct_y", "direct_z")}
_FORCES = ("fx", "fy", "fz")
_COMPONENTS = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def recognizes(head: str) -> bool:
    """Whether a text file that begins with ``head`` is one of MLIP's."""
    return head.lstrip().startswith(BEGIN)


def read_mtp(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a ``.cfg`` file of MLIP; ``type_map`` must give the elements of its types, type 0 first."""
    if options.type_map is None:
        raise DataError(
            f"{path}: a file of MLIP has types from 0 on, but not their elements; give {advice('type_map', 'O,H')}, "
            "type 0 first"
        )
    elements = numbers_of_symbols(options.type_map, f"{path}: the type map")
    with Lines(path) as lines:
        structures = _structures(lines, elements, options.notes.remarks)
        yield from frames_of(structures, path, "frame", options)


def _structures(lines: Lines, elements: NDArray[np.int64], remarks: Counter[str]) -> Iterator[Atoms]:
    while (line := lines.next_filled()) is not None:
        if line.strip() != BEGIN:
            raise DataError(f"{lines.where}: expected {BEGIN}, got {line.strip()[:60]!r}")
        yield _structure(lines, elements, remarks)


def _structure(lines: Lines, elements: NDArray[np.int64], remarks: Counter[str]) -> Atoms:
    size, cell, table, info = 0, None, {}, dict[str, Any]()
    while (line := lines.needed(END).strip()) != END:
        word, *rest = line.split() or [""]
        if word == "Size":
            size = lines.count(lines.needed("the number of atoms"), "atoms")
        elif word in ("Supercell", "SuperCell"):
            cell = [lines.numbers(lines.needed("a cell vector").split(), 3, "a cell vector") for _ in range(3)]
        elif word == "AtomData:":
            table = _columns(lines, rest, size)
        elif word == "Energy":
            (info["energy"],) = lines.numbers(lines.needed("the energy").split(), 1, "the energy")
        elif word == "PlusStress:":
            info["virial"] = _virial(lines, rest)
        elif word in ("Stress:", "Virial:"):
            lines.needed(word)
            remarks[f"{word[:-1]}, which early versions of MLIP wrote, has no one sign and is not read"] += 1
        elif word == "Feature" and rest:
            info[f"{word} {rest[0]}"] = " ".join(rest[1:])
        elif word:
            raise DataError(f"{lines.where}: {word[:60]!r} is no part of a configuration of MLIP")
    return _atoms(lines, elements, cell, table, info)


def _columns(lines: Lines, names: list[str], size: int) -> dict[str, list[float]]:
    if size == 0:
        raise DataError(f"{lines.where}: AtomData comes before Size")
    rows = [lines.numbers(lines.needed("an atom").split(), len(names), "an atom") for _ in range(size)]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _virial(lines: Lines, names: list[str]) -> NDArray[np.float64]:
    if sorted(names) != sorted(_COMPONENTS):
        raise DataError(f"{lines.where}: PlusStress should name {', '.join(_COMPONENTS)}, it names {', '.join(names)}")
    virial = np.zeros((3, 3))
    for name, value in zip(names, lines.numbers(lines.needed("PlusStress").split(), 6, "PlusStress"), strict=True):
        i, j = _COMPONENTS[name]
        virial[i, j] = virial[j, i] = value
    return virial


def _atoms(
    lines: Lines,
    elements: NDArray[np.int64],
    cell: list[list[float]] | None,
    table: dict[str, list[float]],
    info: dict[str, Any],
) -> Atoms:
    style = next((style for style, names in _POSITIONS.items() if set(names) <= set(table)), None)
    if style is None or "type" not in table:
        raise DataError(
            f"{lines.where}: AtomData should have the columns type and cartes_x, cartes_y, cartes_z, it has "
            f"{', '.join(table) or 'none'}"
        )
    if "id" in table and table["id"] != list(range(1, len(table["id"]) + 1)):
        raise DataError(f"{lines.where}: the atoms should have the id 1, 2, 3, … in that order")
    types = np.array(table["type"])
    if not np.isin(types, np.arange(len(elements))).all():
        raise DataError(
            f"{lines.where}: types {types.min():g} to {types.max():g}, where the type map gives the elements of types "
            f"0 to {len(elements) - 1}"
        )
    positions = np.column_stack([table[name] for name in _POSITIONS[style]])
    if style == "direct":
        if cell is None:
            raise DataError(f"{lines.where}: direct coordinates without a Supercell")
        positions = positions @ np.array(cell)
    atoms = Atoms(elements[types.astype(np.int64)], positions, cell=cell, pbc=cell is not None, info=info)
    if set(_FORCES) <= set(table):
        atoms.arrays["forces"] = np.column_stack([table[name] for name in _FORCES])
    return atoms
