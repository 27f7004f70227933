"""Reader of lists of pymatgen structures with outputs, as mlearn and maml keep their data, without pymatgen.

A JSON list of ``{"structure": …, "outputs": {"energy", "forces", "virial_stress"}}``, in Å, eV and eV/Å.
``virial_stress`` is what VASP prints: six numbers in the order xx, yy, zz, xy, yz, xz, in kbar and with the sign of a
pressure. That order is maml's ``vasp_stress_order``; compressed crystals in mlearn's data have positive ones. The
``group`` of an element is the kind of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.frame_marks import CONFIG_TYPE
from sdas.data.readers.json_items import items_of_list
from sdas.data.readers.options import ReadOptions, floats, numbers_of_symbols
from sdas.data.readers.structures import frames_of
from sdas.data.units import Units

UNITS = Units.parse("eV,Å,eV/Å,-kbar")
_VASP_ORDER = [[0, 3, 5], [3, 1, 4], [5, 4, 2]]
_STRESS = "virial_stress"


def recognizes(head: str) -> bool:
    """Whether a text file that begins with ``head`` is such a list."""
    start = "".join(head[:200].split())
    return start.startswith('[{"') and ('"outputs"' in head or '"@module":"pymatgen' in "".join(head.split()))


def read_mlearn(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a list of pymatgen structures; other ``outputs`` than the usual are found by the keys of labels."""
    yield from frames_of(_structures(path, options), path, "frame", options, default=UNITS)


def _structures(path: Path, options: ReadOptions) -> Iterator[Atoms]:
    for index, item in enumerate(items_of_list(path)):
        where = f"{path}: frame {index}"
        structure, outputs = (_part(item, name, where) for name in ("structure", "outputs"))
        atoms = _atoms(structure, where)
        for name, value in outputs.items():
            if name == _STRESS and options.stress_key in (None, _STRESS):
                stress = floats(value, 1.0, _STRESS, where)
                if stress.shape != (6,):
                    raise DataError(f"{where}: {_STRESS} should be 6 numbers, it has the shape {list(stress.shape)}")
                atoms.info[options.stress_key or "stress"] = stress[_VASP_ORDER]
            else:
                atoms.info[name] = value
        atoms.info.update({name: value for name, value in item.items() if isinstance(value, str)})
        if "group" in atoms.info:
            atoms.info.setdefault(CONFIG_TYPE, atoms.info.pop("group"))
        yield atoms


def _part(item: Any, name: str, where: str) -> dict[str, Any]:
    part = item.get(name) if isinstance(item, dict) else None
    if not isinstance(part, dict):
        raise DataError(f"{where}: no {name}; wanted is an object with structure, of pymatgen, and outputs")
    return part


def _atoms(structure: dict[str, Any], where: str) -> Atoms:
    sites, lattice = structure.get("sites"), structure.get("lattice")
    if not isinstance(sites, list) or not sites:
        raise DataError(f"{where}: its structure has no sites")
    symbols = [_symbol(site, where) for site in sites]
    cell, periodic = None, False
    if isinstance(lattice, dict):
        cell = floats(lattice.get("matrix"), 1.0, "matrix of the lattice", where)
        periodic = lattice.get("pbc", True)
    place = "xyz" if all("xyz" in site for site in sites) else "abc"
    positions = floats([site.get(place) for site in sites], 1.0, "positions", where)
    if positions.shape != (len(sites), 3) or (cell is not None and cell.shape != (3, 3)):
        raise DataError(f"{where}: sites should have three coordinates and the lattice a matrix of three vectors")
    if place == "abc":
        if cell is None:
            raise DataError(f"{where}: fractional coordinates without a lattice")
        positions = positions @ cell
    pbc = np.broadcast_to(np.asarray(periodic, dtype=bool), (3,))
    return Atoms(numbers_of_symbols(symbols, where), positions, cell=cell, pbc=pbc)


def _symbol(site: Any, where: str) -> Any:
    species = site.get("species") if isinstance(site, dict) else None
    if not isinstance(species, list) or len(species) != 1 or not isinstance(species[0], dict):
        raise DataError(f"{where}: a site should hold one element")
    if species[0].get("occu", 1) != 1:
        raise DataError(f"{where}: a site is occupied in part, which has no one structure")
    return species[0].get("element")
