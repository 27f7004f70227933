"""How close atoms come in frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from sdas.data.frame import Frame
from sdas.data.graphs import graph_of

SIZE = 128
"""Above every atomic number."""


def shortest_distances(frames: Sequence[Frame], indices: Iterable[int], cutoff: float) -> dict[tuple[int, int], float]:
    """The shortest distance in those frames, Å, of every pair of elements that meets within the cutoff.

    Pairs are atomic numbers in ascending order. Images of a periodic frame count.
    """
    least = np.full(SIZE * SIZE, np.inf)
    for index in indices:
        graph = graph_of(frames[index], cutoff, torch.float64)
        ends = graph.numbers[torch.stack((graph.edges.receivers, graph.edges.senders))].numpy()
        distances = graph.edge_vectors().norm(dim=1).numpy()
        np.minimum.at(least, ends.min(0) * SIZE + ends.max(0), distances)
    return {(int(at) // SIZE, int(at) % SIZE): float(least[at]) for at in np.flatnonzero(np.isfinite(least))}
