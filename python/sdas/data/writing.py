"""Frames to extended XYZ, which every program of the field reads, with facts in the comment line of each."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import IO, Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from ase.stress import full_3x3_to_voigt_6_stress

from sdas.data.frame import Frame
from sdas.data.readers.frame_marks import CONFIG_TYPE, WEIGHT
from sdas.files import StrPath, write_atomically


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
