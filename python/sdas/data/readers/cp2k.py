"""Reader of trajectories of CP2K: ``NAME-pos-1.xyz``, with ``NAME-frc-1.xyz`` and ``NAME-1.cell`` beside it.

Positions are in Å, energies (``E =`` in the comment lines) in Hartree, forces in Hartree/bohr and cells in Å, which are
CP2K's defaults. Frames belong together by their step, ``i =``. The cell is in none of the XYZ files: where there is no
``.cell`` file, as of a run at constant volume, the option ``cell`` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.readers.options import ReadOptions, numbers_of_symbols
from sdas.data.readers.structures import frames_of
from sdas.data.readers.text_lines import Lines
from sdas.data.units import Units

UNITS = Units.parse("Hartree,Å,Hartree/bohr")
_NAME = re.compile(r"(.+)-(pos|frc)-(\d+)\.xyz$")
_COMMENT = re.compile(r"^\s*i\s*=\s*(\d+)\s*,.*\bE\s*=\s*(\S+)")


@dataclass(slots=True)
class _Step:
    """A frame of an XYZ file, or of a ``.cell`` file. values: [n, 3]."""

    number: int
    values: NDArray[np.float64]
    energy: float = 0.0
    symbols: list[str] = field(default_factory=list)


def recognizes(path: Path, head: str) -> bool:
    """Whether ``path``, which begins with ``head``, is named and written as CP2K's positions or forces."""
    return bool(_NAME.match(path.name) and _COMMENT.match([*head.splitlines()[:2], "", ""][1]))


def read_cp2k(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of the positions ``path``, with the forces and cells of the files beside it."""
    named = _NAME.match(path.name)
    if named is None or named[2] != "pos":
        raise DataError(f"{path}: give CP2K's file of positions, NAME-pos-1.xyz; forces are found beside it")
    with ExitStack() as stack:

        def beside(name: str) -> Lines | None:
            file = path.with_name(name)
            return stack.enter_context(Lines(file)) if file.is_file() else None

        positions = stack.enter_context(Lines(path))
        forces = beside(f"{named[1]}-frc-{named[3]}.xyz")
        cells = beside(f"{named[1]}-{named[3]}.cell")
        if cells is None and options.cell is None:
            raise DataError(
                f"{path}: there is no {named[1]}-{named[3]}.cell beside it, and its cell stands nowhere else; give "
                f"{advice('cell', '9.85,9.85,9.85')} in Å, or nine numbers, or 'none' for open space"
            )
        if forces is None:
            options.notes.remarks[f"there are no forces: no {named[1]}-frc-{named[3]}.xyz beside {path}"] += 1
        yield from frames_of(_structures(positions, forces, cells, options), path, "frame", options, default=UNITS)


def _structures(positions: Lines, forces: Lines | None, cells: Lines | None, options: ReadOptions) -> Iterator[Atoms]:
    forces_at = _Follower(_xyz_steps(forces) if forces else iter(()), "forces", options)
    cell_at = _Follower(_cell_steps(cells) if cells else iter(()), "cells", options)
    fixed = None if options.cell in (None, "none") else np.array(options.cell, dtype=np.float64)
    for step in _xyz_steps(positions):
        cell = fixed if fixed is None or fixed.size != 3 else np.diag(fixed)
        if cells is not None and options.cell is None:
            found = cell_at.step(step.number)
            if found is None:
                raise DataError(f"{cells.path}: no cell of step {step.number}, {positions.where}")
            cell = found.values
        atoms = Atoms(
            numbers_of_symbols(step.symbols, positions.where),
            step.values,
            cell=None if cell is None else cell.reshape(3, 3),
            pbc=cell is not None,
            info={"energy": step.energy},
        )
        if force := forces_at.step(step.number):
            if force.symbols != step.symbols:
                raise DataError(f"{positions.where}: the forces of step {step.number} belong to other atoms")
            if force.energy != step.energy:
                raise DataError(
                    f"{positions.where}: the energy of step {step.number} is {step.energy}, beside its forces it is "
                    f"{force.energy}; do the two files belong to one run?"
                )
            atoms.set_array("forces", force.values)
        yield atoms


class _Follower:
    """Steps of a file beside the positions, taken as far as those have come."""

    def __init__(self, steps: Iterator[_Step], what: str, options: ReadOptions) -> None:
        self._steps, self._what, self._options = steps, what, options
        self._next = next(steps, None)

    def step(self, number: int) -> _Step | None:
        """The step with this ``number``, None if there is none; steps passed over are noted."""
        while self._next is not None and self._next.number < number:
            self._options.notes.remarks[f"{self._what} of steps without positions are not used"] += 1
            self._next = next(self._steps, None)
        if self._next is None or self._next.number != number:
            return None
        found, self._next = self._next, next(self._steps, None)
        return found


def _xyz_steps(lines: Lines) -> Iterator[_Step]:
    while (line := lines.next_filled()) is not None:
        count = lines.count(line, "atoms")
        comment = _COMMENT.match(lines.needed("the comment of a frame"))
        if comment is None:
            raise DataError(f"{lines.where}: expected 'i = STEP, …, E = ENERGY', as CP2K writes")
        (energy,) = lines.numbers([comment[2].rstrip(",")], 1, "the energy")
        symbols, rows = [], []
        for _ in range(count):
            symbol, *rest = lines.needed("an atom").split() or [""]
            symbols.append(symbol)
            rows.append(lines.numbers(rest, 3, "an atom"))
        yield _Step(int(comment[1][:18]), np.array(rows), energy, symbols)


def _cell_steps(lines: Lines) -> Iterator[_Step]:
    while (line := lines.next_filled()) is not None:
        if line.lstrip().startswith("#"):
            if "Cell" not in line and "Angstrom" not in line:
                raise DataError(f"{lines.where}: expected cells in Angstrom, as CP2K writes")
            continue
        numbers = lines.numbers(line.split(), 12, "step, time, nine components of a cell and its volume")
        yield _Step(int(numbers[0]), np.array(numbers[2:11]).reshape(3, 3))
