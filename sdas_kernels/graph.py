"""Atoms and who sees whom: the graph that every operator and layer takes.

    r_ij = r_j - r_i + S·cell        atom i receives from atom j, S counts cells

Edges are sorted by receiver, so the neighbors of atom i are the edges `row_ptr[i] .. row_ptr[i+1]`; `sender_order`
lists the same edges sorted by sender, for the passes that sum over receivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from sdas_kernels.ops.segment import Segments, gather, receivers, senders

MIN_DISTANCE = 1e-4  # Å; closer atoms are taken for a mistake in the input


@dataclass(frozen=True, eq=False)
class EdgeIndex:
    """Which node receives from which, in both orders. Index tensors are int64.

    receivers, senders [E]: sorted by receiver. row_ptr [N+1]: first edge of each receiver.
    sender_order [E]: the edges sorted by sender (stable). sender_ptr [N+1]: first place in `sender_order` of each.
    """

    receivers: torch.Tensor
    senders: torch.Tensor
    row_ptr: torch.Tensor
    sender_order: torch.Tensor
    sender_ptr: torch.Tensor

    @classmethod
    def from_pairs(cls, receivers: torch.Tensor, senders: torch.Tensor, num_nodes: int) -> EdgeIndex:
        """From pairs already sorted by receiver."""
        sender_order = torch.argsort(senders, stable=True)
        return cls(
            receivers, senders, _pointers(receivers, num_nodes), sender_order, _pointers(senders, num_nodes)
        )

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.row_ptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """E."""
        return self.receivers.shape[0]

    def tensors(self) -> list[torch.Tensor]:
        """The five index tensors in the order in which operators take them."""
        return [self.receivers, self.senders, self.row_ptr, self.sender_order, self.sender_ptr]


@dataclass(frozen=True, eq=False)
class NeighborGraph:
    """One or more systems as a graph of atoms within a cutoff. Make it by `build` and `batch`.

    positions [N, 3] Å, numbers [N] atomic numbers, edges, cell_shifts [E, 3] (whole cells, in the dtype of positions),
    cells [B, 3, 3] Å (rows are the cell vectors; zeros where there is none), pbc [B, 3], system [N]: which of the B
    systems an atom belongs to, ascending, cutoff Å, periodic: whether any system has a periodic direction.
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

        Raises:
            ValueError: shapes, non-finite numbers, a degenerate cell, or two atoms at the same place.
        """
        if isinstance(positions, torch.Tensor):
            dtype = dtype or (positions.dtype if positions.is_floating_point() else None)
            device = device or positions.device
        dtype = dtype or torch.get_default_dtype()
        r, z = _as_array(positions, np.float64), _whole_numbers(numbers)
        _check_atoms(r, z, cutoff)
        box, periodic = _check_cell(cell, pbc)
        receivers, senders, shifts = _find_pairs(r, box, periodic, float(cutoff))
        edges = EdgeIndex.from_pairs(receivers, senders, len(r))
        graph = cls(
            positions=torch.tensor(r, dtype=dtype),
            numbers=torch.tensor(z),
            edges=edges,
            cell_shifts=shifts.to(dtype),
            cells=torch.tensor(box, dtype=dtype)[None],
            pbc=torch.as_tensor(periodic)[None],
            system=torch.zeros(len(r), dtype=torch.int64),
            cutoff=float(cutoff),
            periodic=bool(periodic.any()),
        )
        return graph.to(device=device)

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
        atoms = _starts([graph.num_atoms for graph in graphs])
        pairs = _starts([graph.num_edges for graph in graphs])
        systems = _starts([graph.num_systems for graph in graphs])
        per_edge, last = [g.edges for g in graphs], graphs[-1].edges
        edges = EdgeIndex(
            receivers=torch.cat([e.receivers + n for e, n in zip(per_edge, atoms, strict=True)]),
            senders=torch.cat([e.senders + n for e, n in zip(per_edge, atoms, strict=True)]),
            row_ptr=torch.cat(
                [e.row_ptr[:-1] + n for e, n in zip(per_edge, pairs, strict=True)] + [last.row_ptr[-1:] + pairs[-1]]
            ),
            sender_order=torch.cat([e.sender_order + n for e, n in zip(per_edge, pairs, strict=True)]),
            sender_ptr=torch.cat(
                [e.sender_ptr[:-1] + n for e, n in zip(per_edge, pairs, strict=True)]
                + [last.sender_ptr[-1:] + pairs[-1]]
            ),
        )
        return NeighborGraph(
            positions=torch.cat([g.positions for g in graphs]),
            numbers=torch.cat([g.numbers for g in graphs]),
            edges=edges,
            cell_shifts=torch.cat([g.cell_shifts for g in graphs]),
            cells=torch.cat([g.cells for g in graphs]),
            pbc=torch.cat([g.pbc for g in graphs]),
            system=torch.cat([g.system + n for g, n in zip(graphs, systems, strict=True)]),
            cutoff=first.cutoff,
            periodic=any(g.periodic for g in graphs),
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

    def edge_vectors(
        self, positions: torch.Tensor | None = None, cells: torch.Tensor | None = None
    ) -> torch.Tensor:
        """r_j - r_i + S·cell, `[E, 3]` Å, differentiable in `positions` [N, 3] and `cells` [B, 3, 3]."""
        r = self.positions if positions is None else positions
        index = self.edges.tensors()
        vectors = gather(r, senders(index)) - gather(r, receivers(index))
        if not self.periodic:
            return vectors
        box = self.cells if cells is None else cells
        if self.num_systems > 1:  # else one cell for all edges
            box = gather(gather(box, Segments(self.system)), receivers(index))
        # not as matrix products: E tiny ones are slow, and a single one would round otherwise than those of a batch
        (sa, sb, sc), (a, b, c) = self.cell_shifts.split(1, 1), box.unbind(1)
        return vectors + (sa * a + sb * b + sc * c)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> NeighborGraph:
        """The same graph on another device, or with floating tensors of another dtype."""

        def moved(item: Any) -> Any:
            if isinstance(item, EdgeIndex):
                return EdgeIndex(*(moved(t) for t in item.tensors()))
            if not isinstance(item, torch.Tensor):
                return item
            kind = dtype if item.is_floating_point() else None
            return item.to(device=device, dtype=kind, non_blocking=non_blocking)

        return replace(self, **{field.name: moved(getattr(self, field.name)) for field in fields(self)})

    def __repr__(self) -> str:
        return (
            f"NeighborGraph({self.num_systems} systems, {self.num_atoms} atoms, {self.num_edges} edges, "
            f"cutoff {self.cutoff:g} Å, {str(self.dtype).removeprefix('torch.')}, {self.device})"
        )


def _pointers(index: torch.Tensor, num_nodes: int) -> torch.Tensor:
    """First place of each node in a sorted copy of `index`: `[N+1]`."""
    counts = torch.bincount(index, minlength=num_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes)[:-1].tolist()]


def _as_array(value: Any, dtype: type) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
    return np.ascontiguousarray(value, dtype=dtype)


def _whole_numbers(numbers: Any) -> np.ndarray:
    z = np.asarray(numbers.detach().cpu() if isinstance(numbers, torch.Tensor) else numbers, dtype=np.float64)
    fractions = z[z != np.round(z)]
    if len(fractions):
        raise ValueError(f"NeighborGraph: numbers must be whole, got {fractions[0]:g}")
    return z.astype(np.int64)


def _check_atoms(r: np.ndarray, z: np.ndarray, cutoff: float) -> None:
    if r.ndim != 2 or r.shape[1] != 3 or len(r) == 0:
        raise ValueError(f"NeighborGraph: positions must be [n, 3] with n >= 1, got {list(r.shape)}")
    if z.shape != (len(r),):
        raise ValueError(f"NeighborGraph: numbers must be [{len(r)}] as positions has, got {list(z.shape)}")
    if not np.isfinite(r).all():
        atom = int(np.argwhere(~np.isfinite(r).all(1))[0, 0])
        raise ValueError(f"NeighborGraph: the position of atom {atom} is {r[atom].tolist()}, not finite")
    if z.min() < 1 or z.max() > 118:
        raise ValueError(f"NeighborGraph: atomic numbers must be 1..118, got {int(z.min())}..{int(z.max())}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"NeighborGraph: cutoff must be positive and finite (Å), got {cutoff}")


def _check_cell(cell: Any, pbc: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cell `[3, 3]` with zeros where there is none, and three bools."""
    box = np.zeros((3, 3)) if cell is None else _as_array(cell, np.float64)
    if box.shape == (3,):
        box = np.diag(box)
    if box.shape != (3, 3) or not np.isfinite(box).all():
        raise ValueError(f"NeighborGraph: cell must be [3, 3] and finite, got {box.tolist()}")
    periodic = np.asarray(bool(box.any()) if pbc is None else _as_array(pbc, np.bool_))
    if periodic.shape not in ((), (1,), (3,)):
        raise ValueError(f"NeighborGraph: pbc must be one bool or three, got {periodic.tolist()}")
    periodic = np.array(np.broadcast_to(periodic, (3,)))
    if np.linalg.matrix_rank(box[periodic]) < periodic.sum():
        raise ValueError(f"NeighborGraph: pbc is {periodic.tolist()} but the cell {box.tolist()} is degenerate there")
    return box, periodic


def _find_pairs(
    r: np.ndarray, box: np.ndarray, periodic: np.ndarray, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Receivers and senders `[E]`, cell shifts `[E, 3]`, sorted by receiver, then sender, then shift."""
    from vesin import NeighborList  # brings ASE and CuPy with it where they are installed

    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=False, n_threads=1)
    i, j, shifts, d = finder.compute(r, box, periodic, quantities="ijSd")
    if len(d) and d.min() < MIN_DISTANCE:
        worst = int(d.argmin())
        raise ValueError(
            f"NeighborGraph: atoms {int(i[worst])} and {int(j[worst])} overlap: they are {d[worst]:.2g} Å apart "
            f"(at least {MIN_DISTANCE:g} Å is needed)"
        )
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, i))
    index = [torch.from_numpy(np.ascontiguousarray(a[order]).astype(np.int64)) for a in (i, j)]
    return index[0], index[1], torch.from_numpy(shifts[order].astype(np.float64))
