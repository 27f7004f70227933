"""Reader of everything that ASE reads, extended XYZ, trajectories and data bases among it.

ASE's own formats are in Å and eV; a file that names its units in its info lines is converted from those, any other
from what ``units`` says. Forces are those stored, never the ones that ASE zeroes on constrained atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.geometry import complete_cell
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.ase_labels import LabelFinder, declared_units
from sdas.data.readers.lmdb_file import LmdbFile
from sdas.data.readers.options import DEFAULT_UNITS, ReadOptions, build_frame

DATABASE_SUFFIXES = {".db": "db", ".aselmdb": "aselmdb"}


def read_ase(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a file that ``ase.io`` reads, streamed where its format allows."""
    yield from _frames(_structures(path, options.ase_format), path, "frame", options)


def read_ase_database(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of an ASE data base (.db; .aselmdb with the package ase-db-backends), in the order of its rows.

    An energy stored as a key-value pair is found under its key.
    """
    yield from _frames(_rows(path), path, "row", options)


def _structures(path: Path, ase_format: str | None) -> Iterator[Atoms]:
    count = 0
    try:
        for atoms in ase.io.iread(path.absolute(), index=":", format=ase_format, do_not_split_by_at_sign=True):
            yield atoms
            count += 1
    except Exception as error:  # ASE's parsers raise whatever their parsing meets
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: ASE cannot read it beyond its first {count} frames: {reason}") from error


def _rows(path: Path) -> Iterator[Atoms]:
    kind = DATABASE_SUFFIXES.get(path.suffix, "extract_from_name")
    if kind == "aselmdb":
        LmdbFile(path).close()
    try:
        database = ase.db.connect(path.absolute(), type=kind, append=True)
    except (ImportError, ValueError, AttributeError) as error:
        hint = "; pip install ase-db-backends" if kind == "aselmdb" else ""
        raise DataError(f"{path}: ASE cannot open this data base ({error}){hint}") from None
    try:
        for row in database.select():
            atoms = row.toatoms(add_additional_information=True)
            extra = atoms.info
            atoms.info = {**extra.get("data", {}), **extra.get("key_value_pairs", {})}
            yield atoms
    except Exception as error:  # the backends raise whatever their storage raises
        raise DataError(f"{path}: ASE cannot read this data base: {type(error).__name__}: {error}") from error


def _frames(structures: Iterator[Atoms], path: Path, what: str, options: ReadOptions) -> Iterator[Frame]:
    labels = LabelFinder(options)
    for index, atoms in enumerate(structures, start=1 if what == "row" else 0):
        where = f"{path}: {what} {index}"
        units = options.agreed_units(declared_units(atoms, where), where) or DEFAULT_UNITS
        cell = atoms.cell.array
        if atoms.pbc.any() and not cell[~atoms.pbc].any(axis=-1).all():
            cell = complete_cell(cell)
        if len(atoms) == 0:
            raise DataError(f"{where}: holds no atoms")
        frame = build_frame(
            where,
            units,
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=cell,
            pbc=atoms.pbc,
            energy=labels.energy(atoms, where),
            forces=labels.forces(atoms, where),
            stress=labels.stress(atoms, where),
        )
        yield options.check_fixed_atoms(frame, _fixed_atoms(atoms))


def _fixed_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return fixed
