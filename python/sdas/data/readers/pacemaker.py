"""Reader of pacemaker's ``.pckl.gzip``: a pickled DataFrame with the columns ``ase_atoms``, ``energy`` and ``forces``.

Stored in eV and Å, as ``pace_collect`` writes. The pickle is not run (:mod:`sdas.data.readers.dataframe_pickle`). A
table without ``energy`` gives ``energy_corrected``, the energy less that of free atoms, which has the same forces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.dataframe_pickle import Fixed, Objects, load_table
from sdas.data.readers.options import ReadOptions, floats
from sdas.data.readers.packed import open_bytes
from sdas.data.readers.restricted_pickle import Array, Record, numbers_in
from sdas.data.readers.structures import frames_of

SUFFIXES = tuple(f"{stem}{packed}" for stem in (".pckl", ".pkl") for packed in (".gzip", ".gz"))
STRUCTURE, ENERGY, CORRECTED = "ase_atoms", "energy", "energy_corrected"


def recognizes(path: Path) -> bool:
    """Whether ``path`` is named as pacemaker's files are."""
    return path.name.endswith(SUFFIXES)


def read_pacemaker(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of the rows of a table of pacemaker."""
    with open_bytes(path) as file:
        columns = load_table(file.read(), str(path))
    if STRUCTURE not in columns:
        raise DataError(f"{path}: no column {STRUCTURE}; it has {', '.join(sorted(columns))}")
    if ENERGY not in columns and CORRECTED in columns and options.energy_key is None:
        options = replace(options, energy_key=CORRECTED)
    yield from frames_of(_structures(path, columns), path, "row", options)


def _structures(path: Path, columns: Mapping[str, Sequence[Any]]) -> Iterator[Atoms]:
    for index, record in enumerate(columns[STRUCTURE], start=1):
        where = f"{path}: row {index}"
        atoms = _atoms(record, where)
        for name, column in columns.items():
            if name != STRUCTURE:
                value = column[index - 1]
                atoms.info[name] = value if isinstance(value, (str, int, float)) else _plain(value, f"{where}: {name}")
        yield atoms


def _atoms(record: Any, where: str) -> Atoms:
    state = record.state if isinstance(record, Record) else None
    arrays = state.get("arrays") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(arrays, dict) or not {"numbers", "positions"} <= set(arrays):
        raise DataError(f"{where}: {STRUCTURE} is no structure of ASE")
    numbers, positions = (numbers_in(arrays[name], f"{where}: {name}") for name in ("numbers", "positions"))
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or positions.shape != (len(numbers), 3):
        raise DataError(f"{where}: numbers of shape {list(numbers.shape)} with positions {list(positions.shape)}")
    stored = state.get("_cellobj", state.get("_cell"))
    if isinstance(stored, Record):
        stored = stored.state.get("array") if isinstance(stored.state, dict) else None
    cell = floats(numbers_in(stored, f"{where}: cell"), 1.0, "cell", where)
    pbc = numbers_in(state.get("_pbc"), f"{where}: pbc")
    if cell.shape != (3, 3) or pbc.shape != (3,):
        raise DataError(f"{where}: a cell of shape {list(cell.shape)} with pbc of {list(pbc.shape)}")
    info = state.get("info")
    atoms = Atoms(numbers.astype(np.int64), positions, cell=cell, pbc=pbc.astype(bool))
    if isinstance(info, dict):
        atoms.info.update({str(name): _plain(value, where) for name, value in info.items()})
    fixed = [c for c in state.get("_constraints") or [] if isinstance(c, Fixed) and isinstance(c.state, dict)]
    atoms.set_constraint([FixAtoms(numbers_in(c.state.get("index"), f"{where}: fixed atoms")) for c in fixed])
    return atoms


def _plain(value: Any, where: str) -> Any:
    """A number, text or array of numbers; of anything else, which may unfold to any size, nothing."""
    if isinstance(value, Array):
        return "" if isinstance(value, Objects) and value.items is not None else value.values
    if isinstance(value, (list, tuple)):
        try:
            return numbers_in(value, where)
        except DataError:
            return ""
    return value if isinstance(value, (str, int, float, np.number)) else ""
