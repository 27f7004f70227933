"""Extended XYZ frame by frame, as a stream: ASE parses a frame, and sees nothing of the file but that frame.

ASE looks through the whole file for the places of its frames, believes their numbers of atoms, and goes back to read
them; a blank line ends the file for it. Here frames are cut out of the stream, which may be packed.

Some is not taken by ASE as it is written: keys in another case, as GPUMD takes them, or a stress of six numbers.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.readers.ase_formats import head_of
from sdas.data.readers.packed import open_text

_KEYS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
_COLUMNS = ("species", "pos")
_NUMBER = r"[-+.\deEdD]+"
_SIX_NUMBERS = re.compile(
    rf"""(?<![\w-])(stress|virial)\s*=\s*["'{{\[]\s*({_NUMBER}(?:[\s,]+{_NUMBER}){{5}})\s*["'}}\]]"""
)
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)


_COLUMNS_DECLARED = re.compile(r"properties\s*=\s*[\"']?([^\s\"']+)", re.IGNORECASE)
UNFINISHED = "unfinished last frame"


class UnfinishedFrame(DataError):
    """The last frame of a file, which ends within it."""


def read_extxyz(path: Path) -> Iterator[Atoms]:
    """Structures of an extended XYZ file, packed or not. Raises :class:`UnfinishedFrame` if it ends within a frame."""
    with open_text(path) as file:
        for index, (lines, is_last) in enumerate(_frames(file, path)):
            where = f"{path}: frame {index}"
            _check_columns(lines, where)
            try:
                yield from read_xyz(io.StringIO("".join(lines)), 0, properties_parser=parse_comment)
            except Exception as error:  # ASE's parsers raise whatever their parsing meets
                reason = f"{where}: ASE cannot read it: {type(error).__name__}: {error}"
                if is_last and not lines[-1].endswith("\n"):
                    raise UnfinishedFrame(f"{reason}; its last line is not complete{_remedy()}") from error
                raise DataError(reason) from error


def _frames(file: IO[str], path: Path) -> Iterator[tuple[list[str], bool]]:
    """The lines of every frame, and whether the file ends after it."""
    index, head = 0, _next_line(file)
    while head:
        where = f"{path}: frame {index}"
        if not head.strip().isdecimal():
            raise DataError(f"{where} should begin with its number of atoms, got {head.strip()[:60]!r}")
        count = int(head[:40])
        lines = [head, file.readline(), *islice(file, min(count, sys.maxsize))]
        if len(lines) < count + 2 or not lines[1]:
            there = max(0, len(lines) - 2)
            raise UnfinishedFrame(
                f"{where} has {count} atoms by its first line, the file ends after {there}{_remedy()}"
            )
        head = file.readline()
        while head.lstrip().startswith("VEC"):
            lines.append(head)
            head = file.readline()
        head = head if head.strip() or not head else _next_line(file)
        yield lines, not head
        index += 1


def _next_line(file: IO[str]) -> str:
    """The next line that is not blank, empty at the end."""
    return next((line for line in file if line.strip()), "")


def _check_columns(lines: list[str], where: str) -> None:
    """Refuse more columns than there are words: ASE would make room for all that are declared."""
    declared = _COLUMNS_DECLARED.search(lines[1])
    words = max((len(line.split()) for line in lines[2:3]), default=0)
    for number in declared[1].split(":")[2::3] if declared and len(lines) > 2 else ():
        if number.isdecimal() and int(number[:20]) > words:
            raise DataError(f"{where}: Properties declares {number[:20]} columns, its first atom has {words}")


def _remedy() -> str:
    return f"; leave an unfinished frame out by {advice('skip', 'incomplete')}"


def parse_comment(line: str) -> dict[str, Any]:
    """Keys and values of the comment line of a frame, those that give its structure spelled as ASE knows them.

    A ``stress`` or ``virial`` of six numbers, in the order xx, yy, zz, yz, xz, xy, comes as the nine that ASE wants.
    """
    info: dict[str, Any]
    try:
        info = key_val_str_to_dict(line)
    except ValueError:
        info = key_val_str_to_dict(_SIX_NUMBERS.sub(_nine_numbers, line))
    for key in [key for key in info if _KEYS.get(key.lower(), key) not in info]:
        info[_KEYS[key.lower()]] = info.pop(key)
    if isinstance(info.get("Lattice"), np.ndarray) and info["Lattice"].shape == (9,):
        info["Lattice"] = np.reshape(info["Lattice"], (3, 3), order="F")
    if isinstance(info.get("Properties"), str):
        fields = info["Properties"].split(":")
        fields[::3] = [name.lower() if name.lower() in _COLUMNS else name for name in fields[::3]]
        info["Properties"] = ":".join(fields)
    return info


def _nine_numbers(match: re.Match[str]) -> str:
    numbers = match[2].replace(",", " ").split()
    return f'{match[1]}="{" ".join(numbers[i] for i in _VOIGT)}"'


def nameless_columns(path: Path) -> str | None:
    """What to say of a plain XYZ file with more columns than element and position, which nothing names; or None."""
    _, comment, atom = [*head_of(path).splitlines()[:3], "", "", ""][:3]
    count = len(atom.split())
    if count <= 4 or "properties=" in comment.lower():
        return None
    return f"columns 5 to {count} of {path} are not read: its comment line has no Properties that name them"
