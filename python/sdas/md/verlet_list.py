"""Neighbors that are found once in many steps.

A list holds every pair closer than cutoff + skin. At each step the pairs beyond the cutoff are left out, so the graph
is the one that would be found anew. A system's pairs are found again before one that is not in its list can have come
within the cutoff:

    r(t) = r(0) F + u          F = cell(0)⁻¹ cell(t), and 1 where no cell moves
    |r_ij(t)| ≥ σ(F) |r_ij(0)| − 2 max |u|          σ: the smallest singular value
    found again unless          σ(F) (cutoff + skin) − 2 max |u| > cutoff
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas.errors import SdasError
from sdas.md.systems import Systems
from sdas_kernels.edge_index import EdgeIndex
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.neighbors import MIN_DISTANCE, find_neighbors
from sdas_kernels.nn import FrozenPotential, ListedPairs, OverlapError


class NoNeighborsError(SdasError, ValueError):
    """The neighbors of a system cannot be found: positions are not finite, or two atoms are at one place.

    row: of the system.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        return NoNeighborsError, (self.row, str(self))  # as it comes from another process


class VerletList:
    """Gives the graph of systems at every step.

    Args:
        cutoff: Å, of the graphs.
        skin: Å; 0 finds the neighbors anew for every graph.
        dtype: of the graphs.
        charge_spin: whether graphs state the charge and spin of systems.
    """

    def __init__(
        self, cutoff: float, skin: float, dtype: torch.dtype = torch.float64, charge_spin: bool = False
    ) -> None:
        if not 0 <= skin < float("inf"):
            raise SdasError(f"skin must be a length in Å, 0 or more, got {skin}")
        self.cutoff, self.skin, self.dtype = float(cutoff), float(skin), dtype
        self.charge_spin = charge_spin
        self.built = 0
        """How often the neighbors of a system were found."""
        self.closest: torch.Tensor = torch.empty(0)
        """Distance `[B]` Å of the closest two atoms of each system, in the last call; infinity without neighbors."""
        self._start: Systems | None = None  # the systems as they were when their pairs were found
        self._pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # of each system
        self._candidates: NeighborGraph
        self._listed: ListedPairs | None = None  # the candidates as a kernel takes them, once it does
        self._of: Systems | None = None  # whose pairs they are
        self._last: Systems  # of the last call
        self._within: torch.Tensor | None = None
        self._chosen: tuple[EdgeIndex, torch.Tensor]
        self._system_of_pair: torch.Tensor

    def graph(self, systems: Systems) -> NeighborGraph:
        """All pairs closer than the cutoff.

        Raises:
            NoNeighborsError: positions of a system are not finite, or two of its atoms overlap.
        """
        self._renew(systems)
        squares = self._candidates.edge_vectors(systems.positions, systems.cells).square().sum(1)
        self.closest, self._last = self._closest(squares), systems
        within = squares <= self.cutoff**2
        if self._within is None or not torch.equal(within, self._within):
            self._within, self._chosen = within, _chosen(self._candidates, within)
        edges, shifts = self._chosen
        graph = NeighborGraph.of_checked(
            positions=systems.positions,
            numbers=self._candidates.numbers,
            edges=edges,
            cell_shifts=shifts,
            cells=systems.cells,
            pbc=self._candidates.pbc,
            system=self._candidates.system,
            cutoff=self.cutoff,
            periodic=self._candidates.periodic,
            **(systems.electronic_states(torch.float64) if self.charge_spin else {}),
        )
        return graph if self.dtype == torch.float64 else graph.to(dtype=self.dtype)

    def evaluate(self, potential: FrozenPotential, systems: Systems, stress: bool = False) -> dict[str, torch.Tensor]:
        """What a potential gives for `graph(systems)`, which is not made; with "closest". Raises as that does."""
        try:
            found = self._step(potential, systems, stress, trust=False) if systems is self._of else None
            if found is None:
                self._renew(systems)
                found = self._step(potential, systems, stress, trust=True)
        except OverlapError as error:
            raise NoNeighborsError(error.row, str(error)) from error
        assert found is not None
        self.closest, self._last = found["closest"], systems
        return found

    def _step(
        self, potential: FrozenPotential, systems: Systems, stress: bool, trust: bool
    ) -> dict[str, torch.Tensor] | None:
        if self._listed is None:
            self._listed = ListedPairs(self._candidates, self.cutoff, self.skin)
        positions, cells = systems.positions.contiguous(), systems.cells.contiguous()
        return potential(self._listed, systems.numbers, positions, cells, stress, trust)

    def closest_pair(self, row: int) -> tuple[float, int, int]:
        """Distance in Å and indices of the closest two atoms of a system in the last call; infinity without pairs."""
        distance = float(self.closest[row])
        if distance == float("inf"):
            return distance, -1, -1
        squares = self._candidates.edge_vectors(self._last.positions, self._last.cells).square().sum(1)
        pair = int(torch.where(self._system_of_pair == row, squares, torch.inf).argmin())
        assert self._start is not None
        edges, first = self._candidates.edges, self._start.starts[row]
        return distance, int(edges.receivers[pair]) - first, int(edges.senders[pair]) - first

    def _renew(self, systems: Systems) -> None:
        """Find the pairs of those systems whose list does not hold any more."""
        self._of = None
        if self._start is None or not _same_atoms(self._start, systems):
            self._pairs = [_NOTHING] * len(systems)
            self._start = systems.rows(range(len(systems)))
            stale = list(range(len(systems)))
        else:
            stale = self._stale(self._start, systems)
        if stale:
            self._find(systems, stale)
        self._of = systems

    def _stale(self, start: Systems, systems: Systems) -> list[int]:
        """Rows of the systems in which a pair that is not listed can have come within the cutoff."""
        positions: torch.Tensor = start.positions
        reach: torch.Tensor | float = self.cutoff + self.skin
        if not torch.equal(start.cells, systems.cells):
            deform, shrunk = _deformation(start, systems)
            positions, reach = (positions[:, None, :] @ systems.of_atoms(deform)).squeeze(1), shrunk * reach
        squares = (systems.positions - positions).square().sum(1)
        farthest = squares.new_zeros(len(systems)).scatter_reduce_(0, systems.system, squares, "amax").sqrt()
        holds = reach - 2 * farthest > self.cutoff  # false where a position is not finite
        return [] if bool(holds.all()) else torch.nonzero(~holds).flatten().tolist()

    def _find(self, systems: Systems, rows: Sequence[int]) -> None:
        start = self._start
        assert start is not None
        for row in rows:
            atoms = systems.span(row)
            pbc = systems.pbc[row].tolist()
            cell = systems.cells[row] if any(pbc) else None
            try:
                pairs = find_neighbors(
                    systems.positions[atoms], systems.numbers[atoms], self.cutoff + self.skin, cell, pbc
                )
            except ValueError as error:
                self._start = None
                raise NoNeighborsError(row, str(error)) from error
            first = systems.starts[row]
            self._pairs[row] = (pairs.receivers + first, pairs.senders + first, pairs.shifts)
            start.positions[atoms], start.cells[row] = systems.positions[atoms], systems.cells[row]
        self.built += len(rows)
        self._within = self._listed = None
        receivers, senders, shifts = (torch.cat(parts).to(systems.device) for parts in zip(*self._pairs, strict=True))
        self._candidates = NeighborGraph.of_checked(
            positions=start.positions,
            numbers=start.numbers,
            edges=EdgeIndex.of_sorted(receivers, senders, len(start.numbers)),
            cell_shifts=shifts,
            cells=start.cells,
            pbc=start.pbc,
            system=start.system,
            cutoff=self.cutoff + self.skin,
            periodic=bool(start.pbc.any()),
        )
        self._system_of_pair = start.system.index_select(0, receivers)

    def _closest(self, squares: torch.Tensor) -> torch.Tensor:
        least = squares.new_full((self._candidates.num_systems,), torch.inf)
        least = least.scatter_reduce_(0, self._system_of_pair, squares, "amin").sqrt()
        row = int(least.argmin())
        if least[row] < MIN_DISTANCE:
            raise NoNeighborsError(row, f"two atoms overlap: they are {float(least[row]):.2g} Å apart")
        return least


_NOTHING = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, 3))


def _same_atoms(one: Systems, other: Systems) -> bool:
    return one.starts == other.starts and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("numbers", "pbc", "replica")
    )


def _deformation(start: Systems, systems: Systems) -> tuple[torch.Tensor, torch.Tensor]:
    """F `[B, 3, 3]` and its smallest singular value `[B]`: 0 where a cell changed that is not periodic everywhere."""
    eye = torch.eye(3, dtype=torch.float64, device=systems.device)
    same = (start.cells == systems.cells).flatten(1).all(1)
    whole = systems.pbc.all(1)
    solvable = (whole & ~same)[:, None, None]
    deform = torch.linalg.solve(torch.where(solvable, start.cells, eye), torch.where(solvable, systems.cells, eye))
    return deform, torch.where(same | whole, torch.linalg.svdvals(deform)[:, -1], 0.0)


def _chosen(graph: NeighborGraph, within: torch.Tensor) -> tuple[EdgeIndex, torch.Tensor]:
    """The edges and shifts of the pairs that `within` `[E]` marks, in both of their orders."""
    if bool(within.all()):
        return graph.edges, graph.cell_shifts
    receivers, senders, row_ptr, order, sender_ptr = graph.edges.tensors()
    kept, kept_in_order = torch.nonzero(within).flatten(), within[order]
    place, place_in_order = _marked_before(within), _marked_before(kept_in_order)
    edges = EdgeIndex.of_checked(
        receivers[kept], senders[kept], place[row_ptr], place[order[kept_in_order]], place_in_order[sender_ptr]
    )
    return edges, graph.cell_shifts[kept]


def _marked_before(marks: torch.Tensor) -> torch.Tensor:
    """How many of the marks `[E]` are set before each, and at last of all: `[E + 1]`."""
    return torch.cat([marks.new_zeros(1, dtype=torch.int64), marks.cumsum(0)])
