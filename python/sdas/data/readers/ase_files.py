"""Reader of everything that ASE reads, extended XYZ, trajectories and data bases among it.

ASE's own formats are in Å and eV; a file that names its units in its info lines or metadata is converted from those,
any other from what ``units`` says. Forces are those stored, never the ones that ASE zeroes on constrained atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.io.runner.runneratoms import Units as RunnerUnits

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers import lammps
from sdas.data.readers.ase_formats import FIXED_UNITS, RUNNER, about_format, guess_format
from sdas.data.readers.bounds import in_bounds
from sdas.data.readers.declared_units import Declaration
from sdas.data.readers.extxyz import UNFINISHED, UnfinishedFrame, nameless_columns, read_extxyz
from sdas.data.readers.lmdb_file import LmdbFile
from sdas.data.readers.options import ReadOptions
from sdas.data.readers.packed import unpacked
from sdas.data.readers.structures import frames_of

DATABASE_SUFFIXES = {".db": "db", ".aselmdb": "aselmdb"}
DATABASES = ("db", "json")


def read_ase(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a file that ``ase.io`` reads, streamed where its format allows."""
    name = options.ase_format or guess_format(path)
    if name is None:
        raise DataError(f"{path}: ASE does not know its format; name it by {advice('format', 'ase:NAME')}")
    if name in DATABASES:
        yield from read_ase_database(path, options)
        return
    fixed = Declaration.of_format(name) if name in FIXED_UNITS else None
    head = lammps.style(path, name) if name in lammps.FORMATS else {}
    yield from frames_of(
        _structures(path, name, options), path, "frame", options, lambda info: fixed or Declaration.found_in(head, info)
    )


def read_ase_database(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of an ASE data base (.db; .aselmdb with the package ase-db-backends), in the order of its rows.

    An energy stored as a key-value pair is found under its key. Units are those that the metadata of the data base
    name, as SchNetPack's do.
    """
    with unpacked(path) as plain:
        database = _connected(plain, path)
        try:
            metadata = database.metadata
        except Exception as error:  # the backends raise whatever their storage raises
            raise DataError(f"{path}: ASE cannot read this data base: {type(error).__name__}: {error}") from error
        rows = _rows(database, plain, path)
        yield from frames_of(rows, path, "row", options, lambda info: Declaration.found_in(metadata, info))


def _structures(path: Path, name: str, options: ReadOptions) -> Iterator[Atoms]:
    arguments: dict[str, Any] = {"index": ":", "format": name, "do_not_split_by_at_sign": True}
    if name == RUNNER and options.units is not None:
        arguments["input_units"] = RunnerUnits.ASE  # which it then leaves as they are
    if name == "extxyz" and (remark := nameless_columns(path)):
        options.notes.remarks[remark] += 1
    if name == "lammps-dump-text":
        lammps.check_columns(path, options.type_map)
    count = 0
    try:
        for atoms in read_extxyz(path) if name == "extxyz" else _read_by_ase(path, arguments):
            count += 1
            yield _put_right(atoms, name, options, f"{path}: frame {count - 1}")
    except UnfinishedFrame:
        if options.skip != "incomplete":
            raise
        options.notes.skip(f"{path}: frame {count}", UNFINISHED)
    except DataError as error:
        if count or name != "extxyz":
            raise
        raise DataError(f"{error}; it was {about_format(path, options.ase_format, name)}") from error
    except Exception as error:  # ASE's parsers raise whatever their parsing meets
        reason = f"{type(error).__name__}: {error}"
        about = "" if count else f"; it was {about_format(path, options.ase_format, name)}"
        raise DataError(f"{path}: ASE cannot read it beyond its first {count} frames: {reason}{about}") from error
    if count == 0:
        raise DataError(f"{path} holds no frames, {about_format(path, options.ase_format, name)}")


def _read_by_ase(path: Path, arguments: dict[str, Any]) -> Iterator[Atoms]:
    """Structures by ASE's own reader, in the memory that a file of this size may take."""
    with unpacked(path) as plain:
        yield from in_bounds(ase.io.iread(plain.absolute(), **arguments), plain)


def _put_right(atoms: Atoms, name: str, options: ReadOptions, where: str) -> Atoms:
    """``atoms`` as the file means them, where ASE's reader of the format ``name`` makes something else of it."""
    if name in lammps.FORMATS:
        atoms.numbers = lammps.elements(atoms, name, options.type_map, where)
    if name in lammps.DUMPS:
        lammps.drop_made_up_energy(atoms)
    return atoms


def _connected(plain: Path, path: Path) -> Any:
    """The data base in the file ``plain``, the content of ``path``."""
    kind = DATABASE_SUFFIXES.get(plain.suffix, "extract_from_name")
    if kind == "aselmdb":
        LmdbFile(plain).close()
    try:
        return ase.db.connect(plain.absolute(), type=kind, append=True)
    except (ImportError, ValueError, AttributeError) as error:
        hint = "; pip install ase-db-backends" if kind == "aselmdb" else ""
        raise DataError(f"{path}: ASE cannot open this data base ({error}){hint}") from None


def _rows(database: Any, plain: Path, path: Path) -> Iterator[Atoms]:
    try:
        for row in in_bounds(database.select(), plain):
            atoms = row.toatoms(add_additional_information=True)
            extra = atoms.info
            atoms.info = {**extra.get("data", {}), **extra.get("key_value_pairs", {})}
            yield atoms
    except DataError:
        raise
    except Exception as error:  # the backends raise whatever their storage raises
        raise DataError(f"{path}: ASE cannot read this data base: {type(error).__name__}: {error}") from error
