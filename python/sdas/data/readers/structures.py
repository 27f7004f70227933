"""The step from ASE's ``Atoms``, whoever read them, to frames: labels are found, units converted, charges noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.geometry import complete_cell
from numpy.typing import NDArray

from sdas.data.electronic_states import state_of
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.ase_labels import LabelFinder, values_of
from sdas.data.readers.declared_units import DEFAULT_UNITS, Declaration, FileUnits
from sdas.data.readers.frame_marks import marks_of
from sdas.data.readers.options import ReadOptions, build_frame
from sdas.data.units import Units


def frames_of(
    structures: Iterator[Atoms],
    path: Path,
    what: str,
    options: ReadOptions,
    declaration: Callable[[dict[str, Any]], Declaration] = lambda info: Declaration(),
    default: Units = DEFAULT_UNITS,
) -> Iterator[Frame]:
    """Frames of ``structures`` from the file ``path``, each called ``what`` and its number.

    ``declaration`` gives the units that the file declares, by the info of a structure; none if not given. ``default``
    are those that hold where it declares none. Labels are found among info, arrays and a calculator's results.
    """
    labels = LabelFinder(options)
    for index, atoms in enumerate(structures, start=1 if what == "row" else 0):
        where = f"{path}: {what} {index}"
        if len(atoms) == 0:
            raise DataError(f"{where}: holds no atoms")
        units = FileUnits(declaration(atoms.info), options.units, where, default, options.notes.remarks)
        if named := units.named():
            options.notes.units[named] += 1
        values = values_of(atoms)
        stored = [(value.name, value.stored) for value in values]
        cell = atoms.cell.array
        if atoms.pbc.any() and not cell[~atoms.pbc].any(axis=-1).all():
            cell = complete_cell(cell)
        length = units.factor("length")
        frame = build_frame(
            where,
            DEFAULT_UNITS,
            numbers=atoms.numbers,
            positions=atoms.positions * length,
            cell=cell * length,
            pbc=atoms.pbc,
            **labels.labels(values, atoms, units),
            **marks_of(stored, options, where),
            **state_of(stored),
        )
        options.notes.states.add(frame)
        yield options.check_fixed_atoms(frame, _fixed_atoms(atoms))


def _fixed_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return fixed
