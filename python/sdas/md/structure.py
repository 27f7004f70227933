"""The structure from which dynamics start, out of any file that holds frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from sdas.config.reading import ReadingOptions, flag_of, make_reading_options
from sdas.data import Units, read_frames
from sdas.data.errors import DataError
from sdas.data.readers import detect_format
from sdas.data.readers.packed import unpacked
from sdas.errors import SdasError

OF_ASE = ("format", "units")
"""Options that say something about a file of which ASE gives the structure."""


def read_structure(path: Path, frame: int, given: Mapping[str, Any] | None = None) -> Atoms:
    """Frame ``frame`` of a file, negative from the end; ``given`` are options of :mod:`sdas.config.reading`.

    What ASE reads keeps its masses and constraints; ``units`` then gives its unit of length. Raises
    :class:`SdasError` if there is no such frame.
    """
    options = make_reading_options(given or {})
    if not path.exists():
        raise SdasError(f"{path}: there is no such file")
    kind, _, name = (options.format or _found_format(path)).partition(":")
    if kind != "ase":
        return _of_frames(path, frame, options)
    useless = [option for option in given or {} if option not in OF_ASE]
    if useless:
        raise SdasError(f"{flag_of(useless[0])} says nothing of a structure that ASE reads, as {path}")
    try:
        with unpacked(path) as plain:
            atoms: Any = ase.io.read(plain.absolute(), index=frame, format=name or None, do_not_split_by_at_sign=True)
    except SdasError:
        raise
    except (StopIteration, IndexError):
        raise SdasError(f"{path}: there is no frame {frame}") from None
    except Exception as error:  # ASE's parsers raise whatever their parsing meets
        reason = f"{path}: frame {frame} cannot be read: {error or type(error).__name__}"
        raise SdasError(f"{reason}; if its format is another, name it by --format ase:NAME") from error
    length = Units.parse(options.units).length if options.units else 1.0
    atoms.set_cell(atoms.cell.array * length)
    atoms.positions *= length
    return atoms


def _of_frames(path: Path, frame: int, options: ReadingOptions) -> Atoms:
    frames = read_frames(path, **options.model_dump(), require=())
    if frame >= 0:
        chosen = next(islice(frames, frame, None), None)
    else:
        last = deque(frames, -frame)
        chosen = last[0] if len(last) == -frame else None
    if chosen is None:
        raise SdasError(f"{path}: there is no frame {frame}")
    parts = {"positions": chosen.positions, "cell": chosen.cell, "pbc": chosen.pbc}
    return Atoms(numbers=chosen.numbers, info=chosen.state, **parts)


def _found_format(path: Path) -> str:
    try:
        return detect_format(path)
    except DataError:
        return "ase"
