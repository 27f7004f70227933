"""Which elements a part of the frames has, and which of them no training frame has."""

from __future__ import annotations

from collections import Counter
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


def with_all_elements(frames: FrameCache, train: IntArray, others: IntArray) -> tuple[IntArray, IntArray]:
    """Both with a few frames exchanged, so that elements of ``others`` are in ``train`` too, as far as that can be."""
    missing = elements_of(frames, others) - elements_of(frames, train)
    if not missing:
        return train, others
    train, others = train.copy(), others.copy()
    occurrences = Counter(number for index in train.tolist() for number in _elements(frames, index))
    for place, index in enumerate(others.tolist()):
        found = _elements(frames, index)
        if not found & missing:
            continue
        spare = (
            k for k in reversed(range(len(train))) if _is_spare(_elements(frames, int(train[k])), occurrences, found)
        )
        partner = next(spare, None)
        if partner is None:
            break
        occurrences.subtract(_elements(frames, int(train[partner])))
        occurrences.update(found)
        others[place], train[partner] = train[partner], index
        missing -= found
    return train, others


def _elements(frames: FrameCache, index: int) -> set[int]:
    return {number for number, _ in frames.composition(index)}


def _is_spare(elements: set[int], occurrences: Mapping[int, int], instead: set[int]) -> bool:
    """Whether all of these elements stay where a frame with them goes and one with ``instead`` comes."""
    return all(occurrences[number] > 1 or number in instead for number in elements)


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
