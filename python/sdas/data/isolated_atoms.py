"""Frames of one atom in open space. They give the energies of elements, and are nothing to learn forces from.

Such a frame has the ``config_type`` that libAtoms and MACE give it, ``IsolatedAtom``, in any spelling; or it has none,
and is periodic along no axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from sdas.data.cache import FrameCache
from sdas.data.errors import DataError
from sdas.data.frame import Frame, IntArray

SAME_ENERGY = 1e-3
"""Largest difference in eV between two energies of an element that is rounding."""


def isolated_atoms(frames: Sequence[Frame]) -> IntArray:
    """Indices of the frames that are isolated atoms."""
    if isinstance(frames, FrameCache):
        single = np.flatnonzero(frames.atom_counts() == 1)
    else:
        single = np.array([index for index, frame in enumerate(frames) if len(frame) == 1], dtype=np.int64)
    return np.array([index for index in single.tolist() if is_isolated(frames[index])], dtype=np.int64)


def structures(frames: Sequence[Frame]) -> IntArray:
    """Indices of all other frames."""
    return np.setdiff1d(np.arange(len(frames), dtype=np.int64), isolated_atoms(frames))


def isolated_energies(frames: Sequence[Frame]) -> tuple[dict[int, float], dict[int, float]]:
    """Of the frames that are isolated atoms, neutral or of no stated charge: energies in eV by atomic number, and
    multiplicities of those that state one.

    Raises :class:`DataError` for one without an energy, and for two of one element that disagree.
    """
    found: dict[int, tuple[float, Frame]] = {}
    for index in isolated_atoms(frames).tolist():
        frame = frames[index]
        if frame.charge:
            continue
        if frame.energy is None:
            raise DataError(f"{frame.source}: an isolated atom without an energy")
        energy, first = found.setdefault(int(frame.numbers[0]), (frame.energy, frame))
        if abs(energy - frame.energy) > SAME_ENERGY:
            raise DataError(
                f"{first.source} and {frame.source} are isolated atoms of {chemical_symbols[frame.numbers[0]]} with "
                f"{energy:.6f} and {frame.energy:.6f} eV: leave one out, or say which by train.energy_reference"
            )
    spins = {number: frame.spin for number, (_, frame) in found.items() if frame.spin is not None}
    return {number: energy for number, (energy, _) in found.items()}, spins


def is_isolated(frame: Frame) -> bool:
    """Whether a frame is an isolated atom."""
    if frame.config_type is None:
        return len(frame) == 1 and not frame.pbc.any()
    name = frame.config_type.lower().replace("_", "").replace(" ", "")
    return len(frame) == 1 and name.rstrip("s") == "isolatedatom"
