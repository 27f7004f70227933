"""Which elements a part of the frames has, and which of them no training frame has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from sdas.data.cache import FrameCache
from sdas.data.frame import Frame, IntArray


def elements_of(frames: Sequence[Frame], indices: IntArray) -> set[int]:
    """Atomic numbers in the frames with these indices."""
    if isinstance(frames, FrameCache):
        chosen = np.zeros(len(frames), dtype=bool)
        chosen[indices] = True
        return set(np.unique(frames.numbers[np.repeat(chosen, frames.atom_counts())]).tolist())
    return {number for index in indices for number in frames[int(index)].numbers.tolist()}


def unknown_elements(frames: Sequence[Frame], train: IntArray, parts: Mapping[str, IntArray]) -> list[str]:
    """A sentence for each of ``parts``, name → indices, with elements that no training frame has."""
    known = elements_of(frames, train)
    sentences = []
    for part, indices in parts.items():
        unknown = sorted(elements_of(frames, indices) - known)
        if unknown:
            with_them = [int(index) for index in indices if np.isin(frames[int(index)].numbers, unknown).any()]
            names = ", ".join(chemical_symbols[number] for number in unknown)
            sentences.append(
                f"{len(with_them)} of the {part} frames hold {names}, which no training frame holds, first "
                f"{frames[with_them[0]].source}"
            )
    return sentences
