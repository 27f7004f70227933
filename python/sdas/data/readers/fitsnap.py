"""Reader of FitSNAP's JSON: a first line of comment, then ``{"Dataset": {"Data": [...], "EnergyStyle": …}}``.

Units are those that the ``…Style`` words name. ``Stress`` has the sign of a pressure: FitSNAP fits it to the pressure
of LAMMPS, and takes VASP's as it is. Rows of ``Lattice`` are the vectors. A folder is read with all JSON files below
it, for FitSNAP keeps each structure in a file of its own; the folder of a file is the kind of its frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.ase_formats import head_of
from sdas.data.readers.declared_units import Declaration, Word
from sdas.data.readers.frame_marks import CONFIG_TYPE
from sdas.data.readers.json_items import whole_json
from sdas.data.readers.options import ReadOptions, floats, numbers_of_symbols
from sdas.data.readers.structures import frames_of

_STYLES = {"Energy": "energy", "Forces": "force", "Stress": "stress", "Positions": "length", "Lattice": "length"}
_STRUCTURE = ("AtomTypes", "Positions", "Lattice", "NumAtoms")
COMMENT = "#"


def recognizes(head: str) -> bool:
    """Whether a text file that begins with ``head`` is one of FitSNAP's."""
    body = head.partition("\n")[2] if head.startswith(COMMENT) else head
    return body.lstrip().startswith("{") and '"Dataset"' in body[:200] and '"Data"' in body


def files(folder: Path) -> list[Path]:
    """The JSON files below ``folder``, by their paths, if the first of them is one of FitSNAP's; else none."""
    found = sorted(path for path in folder.rglob("*.json") if path.is_file())
    return found if found and recognizes(head_of(found[0])) else []


def read_fitsnap(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of a file of FitSNAP, or of all below a folder."""
    for file in files(path) if path.is_dir() else [path]:
        document = whole_json(file, COMMENT)
        content = document.get("Dataset") if isinstance(document, dict) else None
        data = content.get("Data") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(data, list) or not data:
            raise DataError(f"{file}: a file of FitSNAP has a Dataset with a list Data, this has none")
        declared = _declaration(content, data, str(file), options)
        group = {CONFIG_TYPE: file.parent.name} if path.is_dir() else {}
        structures = (_atoms(item, group, f"{file}: frame {index}") for index, item in enumerate(data))
        yield from frames_of(structures, file, "frame", options, lambda info, declared=declared: declared)  # type: ignore[misc]


def _declaration(content: dict[str, Any], data: list[Any], where: str, options: ReadOptions) -> Declaration:
    if content.get("AtomTypeStyle", "chemicalsymbol") != "chemicalsymbol":
        raise DataError(f"{where}: AtomTypeStyle is {content['AtomTypeStyle']!r}; only chemicalsymbol is read")
    units: dict[str, tuple[Word, ...]] = {}
    for name, quantity in _STYLES.items():
        style = content.get(f"{name}Style")
        if isinstance(style, str):
            text = re.sub(r"_?per_?", "/", style)
            text = f"-{text}" if quantity == "stress" else text
            units[quantity] = (*units.get(quantity, ()), Word(f"{name}Style", text))
        elif options.units is None and name in data[0]:
            raise DataError(
                f"{where}: no {name}Style, which names the unit; give {advice('units', 'eV,Å,eV/Å,-bar')} or what it is"
            )
    return Declaration(units)


def _atoms(item: Any, group: dict[str, str], where: str) -> Atoms:
    missing = [name for name in ("AtomTypes", "Positions") if not isinstance(item, dict) or name not in item]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(missing)}")
    numbers = numbers_of_symbols(item["AtomTypes"] if isinstance(item["AtomTypes"], list) else [None], where)
    positions = floats(item["Positions"], 1.0, "Positions", where)
    cell = floats(item["Lattice"], 1.0, "Lattice", where) if "Lattice" in item else None
    if positions.shape != (len(numbers), 3) or (cell is not None and cell.shape != (3, 3)):
        raise DataError(
            f"{where}: Positions of shape {list(positions.shape)} for {len(numbers)} atoms, or a Lattice that is not "
            "three vectors"
        )
    if item.get("NumAtoms", len(numbers)) != len(numbers):
        raise DataError(f"{where}: NumAtoms is {item['NumAtoms']}, there are {len(numbers)} AtomTypes")
    info = {name: value for name, value in item.items() if name not in _STRUCTURE}
    return Atoms(numbers, positions, cell=cell, pbc=cell is not None, info={**group, **info})
