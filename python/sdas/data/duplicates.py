"""Structures that two parts of the frames share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sdas.data.frame import Frame, IntArray

DECIMALS = 5
"""Of positions and cells in Å that are compared: files keep some more, and thermal motion differs in the first."""


def repeated(frames: Sequence[Frame], known: IntArray, part: IntArray) -> list[int]:
    """Those indices of ``part`` whose structure is also that of a frame in ``known``.

    Structures are the same with the same atoms, in the same order, at the same places of the same cell. Their charge
    and spin are the same too; labels may differ.

    One pass over both, in the memory of a hash for each frame in ``part``.
    """
    marks = {int(index): _mark(frames[int(index)]) for index in part}
    wanted = set(marks.values())
    shared = wanted.intersection(_mark(frames[int(index)]) for index in known) if wanted else set()
    return [index for index, mark in marks.items() if mark in shared]


def _mark(frame: Frame) -> bytes:
    """A hash of the structure and its charge and spin; -0.0 counts as 0.0."""
    digest = hashlib.blake2b(frame.numbers.tobytes(), digest_size=16)
    digest.update(frame.pbc.tobytes())
    digest.update(repr(frame.state).encode())
    for values in (frame.positions, frame.cell[frame.pbc] if frame.cell is not None else None):
        if values is not None:
            digest.update((np.round(values, DECIMALS) + 0.0).tobytes())
    return digest.digest()
