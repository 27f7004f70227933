"""Atoms and who sees whom: the graph that every operator and layer takes.

    r_ij = r_j - r_i + S·cell        atom i receives from atom j, S counts cells

Edges are sorted by receiver, so the neighbors of atom i are the edges `row_ptr[i] .. row_ptr[i+1]`; `sender_order`
lists the same edges sorted by sender, for the passes that sum over receivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch

from sdas_kernels import electronic_states
from sdas_kernels.arguments import FLOATING, dense_tensor, has_values, index_tensor, known_device, positive_length
from sdas_kernels.edge_index import EdgeIndex, counted
from sdas_kernels.neighbors import find_neighbors
from sdas_kernels.segment import Segments, gather, receivers, segment_sum, senders

__all__ = ["EdgeIndex", "NeighborGraph", "centered"]


@dataclass(frozen=True, eq=False)
class NeighborGraph:
    """One or more systems as a graph of atoms within a cutoff. Make it by `build` and `batch`.

    positions [N, 3] Å, numbers [N] atomic numbers, edges, cell_shifts [E, 3] (whole cells, in the dtype of positions),
    cells [B, 3, 3] Å (rows are the cell vectors; zeros where there is none), pbc [B, 3], system [N]: which of the B
    systems an atom belongs to, ascending, cutoff Å, periodic: whether any system has a periodic direction. charge [B]:
    total charge in e, spin [B]: multiplicity 2S + 1, both in the dtype of positions; None of neutral systems and of
    singlets. Only models with `charge_spin` read them.

    In float64 the positions are those given. A narrower dtype would round them far from the origin. So for one, `build`
    and `to` move each system as a whole until its mean position is zero. Atoms more than a cell and a half from there
    along a periodic direction are brought near by whole cells. `cell_shifts` count these cells, so edge vectors stay
    what they were. To move the atoms of such a graph, add displacements to its positions.

    Made of its parts, or by `dataclasses.replace`, it checks them, takes any integers for indices and numbers, and
    brings cells and shifts to the dtype of positions.

    Raises:
        TypeError, ValueError: a part is of the wrong kind, shape, dtype, device or range.
    """

    positions: torch.Tensor
    numbers: torch.Tensor
    edges: EdgeIndex
    cell_shifts: torch.Tensor
    cells: torch.Tensor
    pbc: torch.Tensor
    system: torch.Tensor
    cutoff: float
    periodic: bool
    charge: torch.Tensor | None = None
    spin: torch.Tensor | None = None
    _state: ClassVar[list[int] | None] = None  # of an instance, when it was checked

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # what is compiled has no numbers; they are checked where it comes out
            return
        for name, part in _checked_parts(self).items():
            object.__setattr__(self, name, part)
        self.accept()

    @classmethod
    def of_checked(cls, **parts: Any) -> NeighborGraph:
        """Of parts that are known to be as the class wants them; nothing is looked at."""
        graph = object.__new__(cls)
        for name, part in parts.items():
            object.__setattr__(graph, name, counted(part) if name in ("numbers", "system") else part)
        graph.accept()
        return graph

    def accept(self) -> None:
        """Take what was written into numbers and system for right, where a writer knows that it is."""
        object.__setattr__(self, "_state", self._now())

    def check_unwritten(self) -> None:
        """Raises `ValueError` if a part was written to, or resized, and does not fit any more."""
        if self._state != self._now():
            _checked_parts(self)
            self.accept()

    def _now(self) -> list[int]:
        """What changes when numbers or systems are written to, or another part is resized."""
        sizes = self.positions.numel(), self.cells.numel(), self.cell_shifts.numel()
        return [self.numbers._version, self.system._version, *sizes]

    @classmethod
    def build(
        cls,
        positions: Any,
        numbers: Any,
        cutoff: float,
        cell: Any = None,
        pbc: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        charge: float | None = None,
        spin: float | None = None,
    ) -> NeighborGraph:
        """Find every pair of atoms closer than the cutoff, periodic images of an atom itself included.

        Args:
            positions: `[n, 3]` Å; tensor, array or nested list. Atoms may lie outside the cell.
            numbers: `[n]` atomic numbers, 1..118.
            cutoff: Å.
            cell: `[3, 3]` Å, rows are the cell vectors; needed where `pbc` is true.
            pbc: one bool or three; by default periodic along every direction if a cell is given.
            dtype, device: of the graph; by default those of `positions` if it is a floating tensor, else torch's
                default dtype and the CPU. The neighbors are found in float64 on the CPU.
            charge, spin: total charge in e, and multiplicity 2S + 1; None of a neutral system, and of a singlet.

        Raises:
            ValueError: shapes, non-finite numbers, a degenerate cell, two atoms at the same place, or a spin below 1.
        """
        if isinstance(positions, torch.Tensor):
            dtype = dtype or (positions.dtype if positions.is_floating_point() else None)
            device = device or positions.device
        dtype = dtype or torch.get_default_dtype()
        found = find_neighbors(positions, numbers, cutoff, cell, pbc)
        graph = cls.of_checked(
            positions=torch.from_numpy(found.positions),
            numbers=torch.from_numpy(found.numbers),
            edges=EdgeIndex.of_sorted(found.receivers, found.senders, len(found.numbers)),
            cell_shifts=found.shifts,
            cells=torch.from_numpy(found.cell)[None],
            pbc=torch.from_numpy(found.pbc)[None],
            system=torch.zeros(len(found.numbers), dtype=torch.int64, device="cpu"),
            cutoff=found.cutoff,
            periodic=bool(found.pbc.any()),
            **electronic_states.of_one_system(charge, spin),
        )
        return graph.to(device, dtype)

    @staticmethod
    def batch(graphs: Sequence[NeighborGraph]) -> NeighborGraph:
        """Put systems side by side; no edge joins two of them.

        Raises `ValueError` if there is none, or if cutoffs, dtypes or devices differ.
        """
        if not graphs:
            raise ValueError("NeighborGraph.batch: needs at least one graph, got none")
        first = graphs[0]
        for k, graph in enumerate(graphs):
            for name, a, b in (
                ("cutoff", graph.cutoff, first.cutoff),
                ("dtype", graph.dtype, first.dtype),
                ("device", graph.device, first.device),
            ):
                if a != b:
                    raise ValueError(f"NeighborGraph.batch: graph {k} has {name} {a}, graph 0 has {b}")
            graph.check_unwritten()
        atoms = _starts([graph.num_atoms for graph in graphs])
        pairs = _starts([graph.num_edges for graph in graphs])
        systems = _starts([graph.num_systems for graph in graphs])
        index = list(zip(*(g.edges.tensors() for g in graphs), strict=True))
        edges = EdgeIndex.of_checked(
            _joined(index[0], atoms),
            _joined(index[1], atoms),
            _joined_pointers(index[2], pairs),
            _joined(index[3], pairs),
            _joined_pointers(index[4], pairs),
        )
        return NeighborGraph.of_checked(
            positions=torch.cat([g.positions for g in graphs]),
            numbers=torch.cat([g.numbers for g in graphs]),
            edges=edges,
            cell_shifts=torch.cat([g.cell_shifts for g in graphs]),
            cells=torch.cat([g.cells for g in graphs]),
            pbc=torch.cat([g.pbc for g in graphs]),
            system=_joined([g.system for g in graphs], systems),
            cutoff=first.cutoff,
            periodic=any(g.periodic for g in graphs),
            charge=electronic_states.joined("charge", graphs),
            spin=electronic_states.joined("spin", graphs),
        )

    @property
    def num_atoms(self) -> int:
        """N, over all systems."""
        return self.numbers.shape[0]

    @property
    def num_edges(self) -> int:
        """E, directed: each pair counts twice."""
        return self.edges.num_edges

    @property
    def num_systems(self) -> int:
        """B."""
        return self.cells.shape[0]

    @property
    def senders(self) -> torch.Tensor:
        """`[E]`."""
        return self.edges.senders

    @property
    def receivers(self) -> torch.Tensor:
        """`[E]`, ascending."""
        return self.edges.receivers

    @property
    def dtype(self) -> torch.dtype:
        """Of positions and cells."""
        return self.positions.dtype

    @property
    def device(self) -> torch.device:
        """Of every tensor."""
        return self.positions.device

    def edge_vectors(self, positions: torch.Tensor | None = None, cells: torch.Tensor | None = None) -> torch.Tensor:
        """r_j - r_i + S·cell, `[E, 3]` Å, differentiable in `positions` [N, 3] and `cells` [B, 3, 3].

        Positions other than the graph's own are these with displacements. Raises `TypeError` or `ValueError` if they or
        the cells are not shaped as the graph's.
        """
        r = self.positions if positions is None else _like("positions", positions, self.positions)
        index = self.edges.tensors()
        vectors = gather(r, senders(index)) - gather(r, receivers(index))
        if not self.periodic:
            return vectors
        box = self.cells if cells is None else _like("cells", cells, self.cells)
        if self.num_systems > 1:  # else one cell for all edges
            box = gather(gather(box, Segments(self.system)), receivers(index))
        # not as matrix products: E tiny ones are slow, and a single one would round otherwise than those of a batch
        (sa, sb, sc), (a, b, c) = self.cell_shifts.split(1, 1), box.unbind(1)
        return vectors + (sa * a + sb * b + sc * c)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> NeighborGraph:
        """The same graph on another device, or with floating tensors of another dtype.

        A narrower dtype moves positions, as the class says. Raises `TypeError` for a dtype that is not floating,
        `ValueError` for a device that is not here.
        """
        self.check_unwritten()
        if dtype is not None and dtype not in FLOATING:
            raise TypeError(f"NeighborGraph: dtype must be a floating dtype, got {dtype!r}")
        device = None if device is None else known_device("NeighborGraph", device)
        narrower = dtype is not None and torch.finfo(dtype).eps > torch.finfo(self.dtype).eps
        brought = _near_the_origin(self) if narrower and has_values(self.positions) else {}

        def moved(item: Any) -> Any:
            if isinstance(item, EdgeIndex):
                return EdgeIndex.of_checked(*(moved(t) for t in item.tensors()))
            if not isinstance(item, torch.Tensor):
                return item
            kind = dtype if item.is_floating_point() else None
            return item.to(device=device, dtype=kind, non_blocking=non_blocking)

        parts = {field.name: getattr(self, field.name) for field in fields(self)} | brought
        return NeighborGraph.of_checked(**{name: moved(part) for name, part in parts.items()})

    def __repr__(self) -> str:
        return (
            f"NeighborGraph({self.num_systems} systems, {self.num_atoms} atoms, {self.num_edges} edges, "
            f"cutoff {self.cutoff:g} Å, {str(self.dtype).removeprefix('torch.')}, {self.device})"
        )


def centered(positions: torch.Tensor, system: torch.Tensor, num_systems: int) -> torch.Tensor:
    """Positions `[N, 3]` moved such that the mean of each system is zero, to rounding."""
    if num_systems == 1:
        return positions - positions.detach().mean(0)
    of = Segments(system)
    with torch.no_grad():
        sizes = segment_sum(torch.ones_like(positions[:, :1]), of, num_systems)
        middle = segment_sum(positions.detach(), of, num_systems) / sizes
    return positions - gather(middle, of)


def _near_the_origin(graph: NeighborGraph) -> dict[str, torch.Tensor]:
    """Positions and shifts, float64, as `NeighborGraph` describes them for a dtype that would round them."""
    positions, of = centered(graph.positions.double(), graph.system, graph.num_systems), Segments(graph.system)
    if not graph.periodic:
        return {"positions": positions}
    cells = graph.cells.detach().double() * graph.pbc[:, :, None]
    fractional = (positions.detach()[:, None, :] @ gather(torch.linalg.pinv(cells), of)).squeeze(1)
    whole = fractional.round()
    whole = torch.where(whole.abs() > 1, whole, 0.0)  # others stay: callers may hold their positions
    index = graph.edges.tensors()
    shifts = graph.cell_shifts.double() + gather(whole, senders(index)) - gather(whole, receivers(index))
    return {"positions": positions - (whole[:, None, :] @ gather(cells, of)).squeeze(1), "cell_shifts": shifts}


def _checked_parts(graph: NeighborGraph) -> dict[str, Any]:
    """The parts of a graph, as the class wants them."""
    owner, edges, r = "NeighborGraph", graph.edges, graph.positions
    if not isinstance(edges, EdgeIndex):
        raise TypeError(f"{owner}: edges must be an EdgeIndex, got {type(edges).__name__}")
    if not isinstance(graph.periodic, bool):
        raise TypeError(f"{owner}: periodic must be a bool, got {graph.periodic!r}")
    parts: dict[str, Any] = {name: getattr(graph, name) for name in ("positions", "cell_shifts", "cells", "pbc")}
    for name, part in parts.items():
        dense_tensor(owner, name, part)
    if r.dtype not in FLOATING:
        raise TypeError(f"{owner}: positions must have a floating dtype, got {r.dtype}")
    if graph.pbc.dtype != torch.bool:
        raise TypeError(f"{owner}: pbc must be bools, got {graph.pbc.dtype}")
    parts |= {name: index_tensor(owner, name, getattr(graph, name)) for name in ("numbers", "system")}
    n, e, b = edges.num_nodes, edges.num_edges, len(graph.cells) if graph.cells.ndim else 0
    shapes = {
        "positions": (n, 3),
        "numbers": (n,),
        "system": (n,),
        "cell_shifts": (e, 3),
        "cells": (b, 3, 3),
        "pbc": (b, 3),
    }
    for name, shape in shapes.items():
        if parts[name].shape != shape:
            raise ValueError(
                f"{owner}: {name} must be {list(shape)} for {n} atoms, {e} edges and {b} cells, "
                f"got {list(parts[name].shape)}"
            )
        if parts[name].device != edges.receivers.device:
            raise ValueError(f"{owner}: {name} is on {parts[name].device} but edges is on {edges.receivers.device}")
    for name in ("positions", "cell_shifts", "cells"):
        if parts[name].is_complex():
            raise TypeError(f"{owner}: {name} must be real, got {parts[name].dtype}")
        parts[name] = parts[name].to(r.dtype).resolve_neg().contiguous()
    if has_values(parts["pbc"]) and graph.periodic != bool(parts["pbc"].any()):
        raise ValueError(f"{owner}: periodic is {graph.periodic} but pbc is {parts['pbc'].tolist()}")
    _check_numbers_and_systems(parts["numbers"], parts["system"], b)
    for name in ("charge", "spin"):
        parts[name] = electronic_states.checked(name, getattr(graph, name), r, b)
    return parts | {"pbc": parts["pbc"].contiguous(), "cutoff": positive_length(owner, "cutoff", graph.cutoff)}


def _check_numbers_and_systems(numbers: torch.Tensor, system: torch.Tensor, num_systems: int) -> None:
    if not has_values(numbers) or not len(numbers):
        return
    low, high = torch.stack(numbers.aminmax()).tolist()
    if low < 1 or high > 118:
        raise ValueError(f"NeighborGraph: atomic numbers must be 1..118, got {low}..{high}")
    low, high = torch.stack(system.aminmax()).tolist()
    if low < 0 or high >= num_systems:
        raise ValueError(
            f"NeighborGraph: system must be 0..{num_systems - 1} for {num_systems} cells, "
            f"got {low if low < 0 else high}"
        )
    if bool((system[1:] < system[:-1]).any()):
        raise ValueError("NeighborGraph: system must be sorted in ascending order: the atoms of a system lie together")


def _like(name: str, given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Floating, of the shape and on the device of the graph's own."""
    dense_tensor("NeighborGraph.edge_vectors", name, given)
    if given.dtype not in FLOATING:
        raise TypeError(f"NeighborGraph.edge_vectors: {name} must have a floating dtype, got {given.dtype}")
    if given.shape != own.shape or given.device != own.device:
        raise ValueError(
            f"NeighborGraph.edge_vectors: {name} must be {list(own.shape)} on {own.device}, as the graph's are, "
            f"got {list(given.shape)} on {given.device}"
        )
    return given


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes)[:-1].tolist()]


def _joined(indices: Sequence[torch.Tensor], starts: Sequence[int]) -> torch.Tensor:
    """One after the other, each counted from its start."""
    return torch.cat([index + start for index, start in zip(indices, starts, strict=True)])


def _joined_pointers(pointers: Sequence[torch.Tensor], starts: Sequence[int]) -> torch.Tensor:
    """The same of first places, whose last one is the first of what follows."""
    last = pointers[-1][-1:] + starts[-1]
    return torch.cat([_joined([each[:-1] for each in pointers], starts), last])
