"""Frames to extended XYZ, which every program of the field reads, with facts in the comment line of each."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from ase.stress import full_3x3_to_voigt_6_stress

from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.frame_marks import CONFIG_TYPE, WEIGHT
from sdas.files import StrPath, write_atomically

SUFFIXES = (".extxyz", ".xyz")
LONGEST_COMMENT = 1 << 20
"""Bytes of a comment line that are looked at."""


def check_place(path: Path, fact: str, source: Path | None = None) -> None:
    """Raise :class:`DataError` if :func:`write_frames` must not write to ``path``: before hours are spent on frames.

    Its name must be that of an extended XYZ file, by which others read it. A file that is there must be an earlier
    result, whose frames tell the ``fact``, and not the ``source`` that is read.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: extended XYZ is written, so the name must end in {' or '.join(SUFFIXES)}")
    if not path.exists():
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file")
    if source is not None and source.exists() and os.path.samefile(path, source):
        raise DataError(f"{path} is read, and would be replaced: write to another file")
    with open(path, "rb") as file:
        file.readline(LONGEST_COMMENT)
        if f" {fact}=".encode() not in file.readline(LONGEST_COMMENT):
            raise DataError(f"{path} is no earlier result, and would be replaced: write to another file")


def write_frames(path: StrPath, frames: Iterable[tuple[Frame, Mapping[str, Any]]]) -> None:
    """Write frames, each with facts by name, to an extended XYZ file that appears whole or not at all.

    Positions and forces have eight decimals, in Å and eV/Å; labels are called energy, forces and stress. Charge, spin,
    weight and type of a frame are among the facts, under the names by which they are read.
    """

    def write(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        for frame, facts in frames:
            write_extxyz(text, [_atoms(frame, facts)], write_results=True)
        text.flush()
        text.detach()

    write_atomically(path, write)


def _atoms(frame: Frame, facts: Mapping[str, Any]) -> Atoms:
    marks: dict[str, Any] = {**frame.state}
    if frame.config_type is not None:
        marks[CONFIG_TYPE] = frame.config_type
    if frame.weight != 1.0:
        marks[WEIGHT] = frame.weight
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info={**marks, **facts})
    stress = None if frame.stress is None else full_3x3_to_voigt_6_stress(frame.stress)
    labels = {"energy": frame.energy, "forces": frame.forces, "stress": stress}
    known = {name: value for name, value in labels.items() if value is not None}
    if known:
        atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms
