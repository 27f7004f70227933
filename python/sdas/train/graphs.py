"""From frames to batches: neighbor graphs are built when first needed and kept while they fit in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sdas.data import Frame, check_frame
from sdas.data.graphs import graph_of
from sdas_kernels.graph import NeighborGraph


@dataclass(frozen=True)
class Batch:
    """B frames with N atoms in all. graph: their neighbor graph. energy [B]: float64, eV. forces [N, 3]: eV/Å."""

    graph: NeighborGraph
    energy: torch.Tensor
    forces: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if self.energy.device == device:
            return self
        forces = self.forces.to(device, non_blocking=True)
        return Batch(self.graph.to(device, non_blocking=True), self.energy.to(device, non_blocking=True), forces)


class GraphStore:
    """Batches of the frames of a sequence, by index.

    frames: labeled frames, such as a frame cache; a missing energy or force raises `DataError` when it is used.
    cutoff: Å. dtype: of positions and forces. cache_bytes: memory for graphs; beyond it the ones not used for longest
    are dropped, and built again when they come up.
    """

    def __init__(self, frames: Sequence[Frame], cutoff: float, dtype: torch.dtype, cache_bytes: float) -> None:
        self.frames, self.cutoff, self.dtype = frames, cutoff, dtype
        self._room = cache_bytes
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self._atoms: dict[int, int] = {}

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The frames of these indices side by side, on the CPU."""
        parts = [self._one(index) for index in indices.tolist()]
        graph = NeighborGraph.batch([part.graph for part in parts])
        return Batch(graph, torch.cat([part.energy for part in parts]), torch.cat([part.forces for part in parts]))

    def atoms(self, indices: NDArray[np.int64]) -> int:
        """Number of atoms in the frames of these indices."""
        for index in indices.tolist():
            if index not in self._atoms:
                self._atoms[index] = len(self.frames[index].numbers)
        return sum(self._atoms[index] for index in indices.tolist())

    def _one(self, index: int) -> Batch:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        frame = check_frame(self.frames[index], ("energy", "forces"))
        graph = graph_of(frame, self.cutoff, self.dtype)
        energy = torch.tensor([frame.energy], dtype=torch.float64)
        made = Batch(graph, energy, torch.tensor(frame.forces, dtype=self.dtype))
        self._keep(index, made)
        return made

    def _keep(self, index: int, made: Batch) -> None:
        self._kept[index] = made
        self._room -= _size(made)
        while self._room < 0 and self._kept:
            self._room += _size(self._kept.popitem(last=False)[1])


def _size(batch: Batch) -> int:
    graph = batch.graph
    tensors = [*graph.edges.tensors(), graph.positions, graph.numbers, graph.cell_shifts, graph.system, batch.forces]
    return sum(tensor.nbytes for tensor in tensors) + 4096
