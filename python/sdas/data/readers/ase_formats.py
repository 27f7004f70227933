"""Formats of ASE: which one a file is taken for, which of them fix their units, and files that ASE does not read."""

from __future__ import annotations

import lzma
import os
import zlib
from contextlib import suppress
from pathlib import Path

from ase.io.formats import UnknownFileTypeError, filetype, ioformats, open_with_compression

from sdas.config.reading import advice

# fmt: off
FIXED_UNITS = frozenset((
    "abinit-gsr", "abinit-in", "abinit-out", "acemolecule-out", "aims", "aims-output", "castep-castep", "castep-cell",
    "castep-geom", "castep-md", "cp2k-dcd", "cp2k-restart", "cube", "dmol-arc", "dmol-car", "dmol-incoor", "elk",
    "espresso-in", "espresso-out", "gamess-us-out", "gamess-us-punch", "gaussian-in", "gaussian-out", "gpaw-out",
    "gpw", "gromacs", "gromos", "magres", "nwchem-in", "nwchem-out", "octopus-in", "onetep-in", "onetep-out",
    "orca-output", "qbox", "siesta-xv", "struct", "sys", "turbomole", "turbomole-gradient", "vasp", "vasp-out",
    "vasp-xdatcar", "vasp-xml", "xsf",
))
# fmt: on
"""Formats of programs, whose units are part of their definition: ASE converts where they are not its own."""
RUNNER = "runnerdata"
"""The input.data of RuNNer and n2p2: atomic units, unless somebody wrote others."""

_FOREIGN = {
    "CP2K|": "CP2K",
    "Psi4: An Open-Source": "Psi4",
    "ABACUS": "ABACUS",
    "OpenMX": "OpenMX",
    "Welcome to Q-Chem": "Q-Chem",
    "MOLPRO": "Molpro",
    "MOPAC": "MOPAC",
    "* xtb version": "xtb",
    "DFTB+ release": "DFTB+",
}
_HEAD = 1 << 16
"""Bytes in which the mark of a program is looked for."""


def guess_format(path: Path) -> str | None:
    """ASE's name of the format that it takes ``path`` for, by name and content, or None."""
    name: str | None = None
    try:
        name = filetype(os.fspath(path.absolute()))
    except EOFError:  # packed, and cut short: its name has to do
        with suppress(UnknownFileTypeError):
            name = filetype(os.fspath(path.absolute()), read=False)
    except (UnknownFileTypeError, OSError, UnicodeDecodeError):
        return None
    return name if name in ioformats else None


def about_format(path: Path, asked: str | None, used: str) -> str:
    """What to say of a file that gave no frames: the format it was read as, and what it seems to be."""
    how = "as was asked for" if asked else "guessed from its name and content"
    other = f"if it is of another, name that by {advice('format', 'ase:NAME')}"
    return f"read as ASE's format {used!r}, {how}; {about_program(path)}{other}"


def about_program(path: Path) -> str:
    """What to say of a file that looks like the output of a program of which ASE reads none; empty for another."""
    program = _foreign(path)
    if program is None:
        return ""
    return f"it looks like an output of {program}, which ASE does not read: turn it into extended XYZ, as dpdata does; "


def head_of(path: Path) -> str:
    """The first 64 KiB of a file, decompressed, as Latin-1; what there is of it if it is damaged."""
    try:
        with open_with_compression(os.fspath(path.absolute()), "rb") as file:
            return str(file.read(_HEAD).decode("latin-1"))
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return ""


def _foreign(path: Path) -> str | None:
    """The program of whose outputs ASE reads none and whose mark is in the head of the file, or None."""
    head = head_of(path)
    return next((program for mark, program in _FOREIGN.items() if mark in head), None)
