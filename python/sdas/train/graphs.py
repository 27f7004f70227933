"""From frames to batches: neighbor graphs are built when first needed and kept while they fit in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from sdas.config.train import DEFAULT_TYPE
from sdas.data import Frame, FrameCache, check_frame
from sdas.data.frame import LABELS, check_labelled
from sdas.data.graphs import graph_of
from sdas_kernels.graph import EdgeIndex, NeighborGraph


@dataclass(frozen=True)
class LabelCounts:
    """Of frames: how many there are, how many atoms they have, and how many labels."""

    frames: int
    atoms: int
    energies: int
    atoms_with_forces: int
    stresses: int


@dataclass(frozen=True)
class Beside:
    """Lone atoms in the graph of a batch, behind its frames (:mod:`sdas.train.lone_atoms`).

    energies [S]: eV, true. rows [N]: for each atom of the frames, which lone atom is its like.
    """

    energies: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device) -> Beside:
        """The same on another device."""
        return Beside(self.energies.to(device, non_blocking=True), self.rows.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """B frames with N atoms in all, and their labels, NaN where a frame has none.

    graph: their neighbor graph. energy [B]: float64, eV. forces [N, 3]: eV/Å. stress [B, 3, 3]: eV/Å³. weight [B]: in
    the loss, None if all are 1. sizes [B]: atoms, float64. volumes [B]: Å³, float64, zero without a cell. counts: of
    the labels. beside: what the graph holds beyond the frames, None for nothing.
    """

    graph: NeighborGraph
    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor
    weight: torch.Tensor | None
    sizes: torch.Tensor
    volumes: torch.Tensor
    counts: LabelCounts
    beside: Beside | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if self.energy.device == device:
            return self
        names = ("graph", "energy", "forces", "stress", "sizes", "volumes")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        weight = None if self.weight is None else self.weight.to(device, non_blocking=True)
        beside = None if self.beside is None else self.beside.to(device)
        return replace(self, weight=weight, beside=beside, **moved)


class GraphStore:
    """Batches of the frames of a sequence, by index.

    frames: labeled frames, such as a frame cache; one without any label raises `DataError` when it is used.
    cutoff: Å. dtype: of positions, forces and stresses. cache_bytes: memory for graphs; beyond it the ones not used for
    longest are dropped, and built again when they come up. type_weights: config_type → weight, "Default" for the rest.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        cutoff: float,
        dtype: torch.dtype,
        cache_bytes: float,
        type_weights: Mapping[str, float] | None = None,
        charge_spin: bool = False,
    ) -> None:
        self.frames, self.cutoff, self.dtype, self.charge_spin = frames, cutoff, dtype, charge_spin
        self._type_weights = type_weights or {}
        self._room = cache_bytes
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self._sizes = frames.atom_counts() if isinstance(frames, FrameCache) else np.array([len(f) for f in frames])
        self._known = {label: labelled(frames, label) for label in LABELS}
        self._in_use = Lock()

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The frames of these indices side by side, on the CPU. Several threads may ask."""
        with self._in_use:
            parts = [self._one(index) for index in indices.tolist()]
        if not parts:
            return self._nothing()
        counts = self.counts(indices)
        graph = NeighborGraph.batch([part.graph for part in parts])
        volumes = torch.cat([part.volumes for part in parts])
        if counts.stresses and not volumes.all():
            # Of frames without a cell the stress has no label, but a model wants a volume for each. No edge crosses it.
            cells = torch.where((volumes == 0)[:, None, None], torch.eye(3, dtype=graph.dtype), graph.cells)
            graph = replace(graph, cells=cells)
        weighted = any(part.weight is not None for part in parts)
        one = torch.ones(1, dtype=torch.float64)
        return Batch(
            graph,
            torch.cat([part.energy for part in parts]),
            torch.cat([part.forces for part in parts]),
            torch.cat([part.stress for part in parts]),
            torch.cat([one if part.weight is None else part.weight for part in parts]) if weighted else None,
            torch.cat([part.sizes for part in parts]),
            volumes,
            counts,
        )

    def counts(self, indices: NDArray[np.int64]) -> LabelCounts:
        """Of the frames of these indices."""
        sizes, known = self._sizes[indices], {label: known[indices] for label, known in self._known.items()}
        return LabelCounts(
            frames=len(indices),
            atoms=int(sizes.sum()),
            energies=int(np.count_nonzero(known["energy"])),
            atoms_with_forces=int(sizes[known["forces"]].sum()),
            stresses=int(np.count_nonzero(known["stress"])),
        )

    def costs(self, indices: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
        """What each of these frames takes of a budget of "size" (1 each), "atoms" or "edges", for which it is built."""
        if unit == "size":
            return np.ones(len(indices), dtype=np.int64)
        if unit == "atoms":
            return np.asarray(self._sizes[indices], dtype=np.int64)
        with self._in_use:
            return np.array([self._one(index).graph.num_edges for index in indices.tolist()], dtype=np.int64)

    def _nothing(self) -> Batch:
        """A batch of no frames."""
        whole = torch.empty(0, dtype=torch.int64)
        graph = NeighborGraph.of_checked(
            positions=torch.empty(0, 3, dtype=self.dtype),
            numbers=whole,
            edges=EdgeIndex.of_sorted(whole, whole, 0),
            cell_shifts=torch.empty(0, 3, dtype=self.dtype),
            cells=torch.empty(0, 3, 3, dtype=self.dtype),
            pbc=torch.empty(0, 3, dtype=torch.bool),
            system=whole,
            cutoff=self.cutoff,
            periodic=False,
        )
        number = torch.empty(0, dtype=torch.float64)
        none = self.counts(np.empty(0, dtype=np.int64))
        return Batch(graph, number, graph.positions, graph.cells, None, number, number, none)

    def _one(self, index: int) -> Batch:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        frame = check_labelled(check_frame(self.frames[index]))
        graph = graph_of(frame, self.cutoff, self.dtype, self.charge_spin)
        weight = frame.weight * self._type_weights.get(
            frame.config_type or DEFAULT_TYPE, self._type_weights.get(DEFAULT_TYPE, 1.0)
        )
        made = Batch(
            graph,
            torch.tensor([np.nan if frame.energy is None else frame.energy], dtype=torch.float64),
            _tensor(frame.forces, (len(frame), 3), self.dtype),
            _tensor(frame.stress, (3, 3), self.dtype)[None],
            None if weight == 1 else torch.tensor([weight], dtype=torch.float64),
            torch.tensor([len(frame)], dtype=torch.float64),
            torch.linalg.det(graph.cells.double()).abs(),
            self.counts(np.array([index])),
        )
        self._keep(index, made)
        return made

    def _keep(self, index: int, made: Batch) -> None:
        self._kept[index] = made
        self._room -= _size(made)
        while self._room < 0 and self._kept:
            self._room += _size(self._kept.popitem(last=False)[1])


def labelled(frames: Sequence[Frame], label: str) -> NDArray[np.bool_]:
    """Which frames have ``label``: ``energy``, ``forces`` or ``stress``."""
    if isinstance(frames, FrameCache):
        return frames.labelled(label)
    return np.array([getattr(frame, label) is not None for frame in frames], dtype=bool)


def _tensor(values: NDArray[np.float64] | None, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.full(shape, torch.nan, dtype=dtype) if values is None else torch.tensor(values, dtype=dtype)


def _size(batch: Batch) -> int:
    graph = batch.graph
    tensors = [*graph.edges.tensors(), graph.positions, graph.numbers, graph.cell_shifts, graph.system, batch.forces]
    return sum(tensor.nbytes for tensor in tensors) + 4096
