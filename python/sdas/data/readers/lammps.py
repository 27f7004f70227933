"""What ASE makes of LAMMPS's files, put right: elements of types, and an energy that the file does not hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.readers.ase_formats import head_of
from sdas.data.readers.options import numbers_of_symbols

DUMPS = ("lammps-dump-text", "lammps-dump-binary")
FORMATS = (*DUMPS, "lammps-data")


def style(path: Path, name: str) -> dict[str, str]:
    """LAMMPS's style of units that a text file of the format ``name`` names in its first lines, as ``units``, or {}."""
    if name == "lammps-dump-binary":
        return {}
    lines = head_of(path).splitlines()[:4]
    found = re.search(r"^ITEM: UNITS\s+(\w+)|^.*\bunits = (\w+)", "\n".join(lines))
    return {"units": found[1] or found[2]} if found else {}


def check_columns(path: Path, type_map: tuple[str, ...] | None) -> None:
    """Raise :class:`DataError` for a text dump with types alone, which ASE would read as H, He, and so on."""
    if type_map is None:
        lines = head_of(path).splitlines()
        columns = next((line.split()[2:] for line in lines if line.startswith("ITEM: ATOMS")), ["element"])
        if not {"element", "mass"} & set(columns):
            raise DataError(f"{path}: a LAMMPS dump with the columns {' '.join(columns)} {_wanted()}")


def elements(atoms: Atoms, name: str, type_map: tuple[str, ...] | None, where: str) -> NDArray[Any]:
    """Atomic numbers [n] of atoms from a file of the format ``name``, by ``type_map`` if given; types start at 1.

    Raises :class:`DataError` where types were taken for atomic numbers, and where the file contradicts the map.
    """
    types = atoms.arrays.get("type")
    if type_map is None:
        guessed = types is not None and name != "lammps-dump-text" and not atoms.has("masses")
        if guessed and (types == atoms.numbers).all():
            raise DataError(f"{where}: a file of LAMMPS that {_wanted()}")
        return atoms.numbers
    of_types = numbers_of_symbols(type_map, f"{where}: the type map")
    if types is None or types.min() < 1 or types.max() > len(type_map):
        found = "no types" if types is None else f"types {types.min()} to {types.max()}"
        raise DataError(f"{where}: {found}, where the type map gives the elements of types 1 to {len(type_map)}")
    numbers = of_types[types - 1]
    if (atoms.numbers != types).any() and (atoms.numbers != numbers).any():
        raise DataError(f"{where}: the type map {','.join(type_map)} contradicts the elements in the file")
    return np.asarray(numbers)


def drop_made_up_energy(atoms: Atoms) -> None:
    """Remove the energy of 0 that ASE adds to the forces of a dump."""
    if atoms.calc is not None:
        atoms.calc.results.pop("energy", None)


def _wanted() -> str:
    return (
        f"does not say which elements its types are; give {advice('type_map', 'O,H')}, type 1 first, or have LAMMPS "
        "write the column element"
    )
