"""Frames as a selection compares them: their composition, their sorted distances, and whether atoms overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray

from sdas.data import Frame
from sdas.data.graphs import graph_of

FloatArray = NDArray[np.float64]
MOST_DISTANCES = 64
"""Of a pair of elements; of more, as many quantiles stand for all."""


class Kinds:
    """Numbers of compositions: equal for frames with the same atoms and the same periodic axes."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def of(self, frames: Sequence[Frame]) -> NDArray[np.int64]:
        """The kind of each frame; int64 [n]."""
        names = [(frame.composition, tuple(frame.pbc.tolist()), tuple(frame.state.items())) for frame in frames]
        return np.array([self._known.setdefault(name, len(self._known)) for name in names], dtype=np.int64)


def shape_of(frame: Frame) -> FloatArray:
    """Sorted distances between atoms of each pair of elements, Å: equal for structures that are moved or turned.

    Along periodic axes those to the nearest image, by the fractional coordinates.
    """
    if len(frame) == 1:
        return np.zeros(1)
    vectors = frame.positions[:, None] - frame.positions
    if frame.cell is not None and frame.pbc.any():
        fractional = vectors @ np.linalg.inv(frame.cell)
        vectors = vectors - np.where(frame.pbc, np.round(fractional), 0.0) @ frame.cell
    distances = np.linalg.norm(vectors, axis=-1)
    upper = np.triu(np.ones(distances.shape, dtype=bool), 1)
    parts = []
    for first, second in combinations_with_replacement(np.unique(frame.numbers).tolist(), 2):
        between = (frame.numbers[:, None] == first) & (frame.numbers == second)
        found = np.sort(distances[(between | between.T) & upper])
        if len(found) > MOST_DISTANCES:
            found = np.quantile(found, np.linspace(0, 1, MOST_DISTANCES))
        parts.append(found)
    return np.concatenate(parts)


def overlapping(frame: Frame, closest: float) -> bool:
    """Whether two atoms are closer than this part of the sum of their covalent radii."""
    radii = covalent_radii[frame.numbers]
    graph = graph_of(frame, 2 * closest * float(radii.max()), torch.float64)
    distances = graph.edge_vectors().norm(dim=1).numpy()
    return bool((distances < closest * (radii[graph.receivers] + radii[graph.senders])).any())
