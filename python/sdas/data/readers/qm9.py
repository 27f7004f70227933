"""Reader of QM9 as published: XYZ files with 15 properties in the second line, and exponents written ``*^``.

Energies are in Hartree, positions in Å. ``U0``, the internal energy at 0 K, is the energy unless ``energy_key`` names
``U``, ``H`` or ``G``. There are no forces. The layout is that of the data set's readme (Ramakrishnan et al., Sci. Data
1, 140022).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.data import atomic_numbers

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.options import ReadOptions
from sdas.data.readers.structures import frames_of
from sdas.data.readers.text_lines import Lines
from sdas.data.units import Units

UNITS = Units.parse("Hartree,Å")
PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
TAG = "gdb"


def recognizes(head: str) -> bool:
    """Whether a text file that begins with ``head`` is of QM9."""
    first, second = [*head.splitlines()[:2], "", ""][:2]
    words = second.split()
    return first.strip().isdecimal() and words[:1] == [TAG] and len(words) == len(PROPERTIES) + 2


def files(folder: Path) -> list[Path]:
    """The files of QM9 in ``folder``, by their names."""
    return sorted(folder.glob("dsgdb9nsd_*.xyz"))


def read_qm9(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a file of QM9, of several one after the other, or of a folder of them: energies alone."""
    for file in files(path) if path.is_dir() else [path]:
        with Lines(file) as lines:
            yield from frames_of(_structures(lines), file, "frame", options, default=UNITS)


def _structures(lines: Lines) -> Iterator[Atoms]:
    while (line := lines.next_filled()) is not None:
        count = lines.count(line, "atoms")
        tag, number, *words = [*lines.needed("the properties").split(), "", ""]
        values = lines.numbers(words[:-2], len(PROPERTIES), "the properties of QM9")
        if tag != TAG:
            raise DataError(f"{lines.where}: expected {TAG}, a number and {len(PROPERTIES)} properties")
        symbols, rows = [], []
        for _ in range(count):
            symbol, *rest = lines.needed("an atom").split() or [""]
            if symbol not in atomic_numbers:
                raise DataError(f"{lines.where}: {symbol[:20]!r} is no chemical element")
            symbols.append(symbol)
            rows.append(lines.numbers(rest, 4, "position and charge of an atom"))
        for what in ("the frequencies", "SMILES", "InChI"):
            lines.needed(what)
        info = {"tag": f"{tag} {number}", **dict(zip(PROPERTIES, values, strict=True))}
        atoms = Atoms(symbols, [row[:3] for row in rows], info=info)
        atoms.set_array("mulliken", [row[3] for row in rows], float)
        yield atoms
