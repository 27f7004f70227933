"""Energy and forces as one CUDA graph: small systems spend their time on launches, which a replay spares.

A graph has fixed sizes, so atoms and edges are padded to the most that there may be. Padding is a system of its own in
the batch: atoms that stand farther apart than the cutoff, and edges among them alone. No edge joins them to a real
atom, and their energy is not part of the result, so they change nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sdas_kernels.arguments import switches, whole_numbers
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.electronic_states import USUAL
from sdas_kernels.graph import EdgeIndex, NeighborGraph, centered
from sdas_kernels.nn.derivatives import frozen
from sdas_kernels.nn.inference import recording_allowed
from sdas_kernels.nn.sdas import SDAS, check_model
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.transforms import transformed

EDGES_PER_ATOM = 64
"""Edges of an atom of the padding, at most: a kernel goes through the edges of an atom one after the other."""
WARM_UP = 3


class CapturedPotential:
    """Replays an `SDAS` potential for systems of up to `atoms` atoms and `edges` directed edges.

        captured = CapturedPotential(model, atoms=1000, edges=48_000)
        found = captured(graph)               # {"energy": [B] eV, "forces": [n, 3] eV/Å}
        found = captured.step(positions)      # the same atoms and edges at new positions [n, 3] Å

    On a GPU the computation is captured at the first call; elsewhere the same padded computation runs as it is.
    A graph may be built with a cutoff longer than the model's, so that its edges hold for some steps: in the default
    layer edges beyond the model's cutoff have no weight.

    Args:
        model: in eval mode. Its weights may change in place between steps, its dtype and device may not.
        atoms, edges: the most that a graph may have.
        systems: how many systems every graph has.
        periodic: whether any of them may have a cell.

    Raises:
        TypeError: from the constructor for what is no `SDAS`, or one of a subclass with another `forward`.
        ValueError: from the constructor for sizes below 1 or a model in training mode; from a call for a graph that is
            too large, periodic where that was excluded, or not the model's.
    """

    @recording_allowed()
    def __init__(self, model: SDAS, atoms: int, edges: int, systems: int = 1, periodic: bool = True) -> None:
        atoms, edges, systems = whole_numbers("CapturedPotential", 1, atoms=atoms, edges=edges, systems=systems)
        (periodic,) = switches("CapturedPotential", periodic=periodic)
        check_model("CapturedPotential", model)
        if model.training:
            raise ValueError("CapturedPotential: wants a model in eval mode")
        self.model, self.atoms, self.edges, self.systems = model, atoms, edges, systems
        rows = atoms + max(2, -(-edges // EDGES_PER_ATOM))
        dtype, device = model.embedding.weight.dtype, model.embedding.weight.device

        def index(size: int) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        self._kinds = index(rows)
        self._batch = NeighborGraph.of_checked(
            positions=torch.zeros(rows, 3, dtype=dtype, device=device),
            numbers=torch.ones(rows, dtype=torch.int64, device=device),
            edges=EdgeIndex.of_checked(index(edges), index(edges), index(rows + 1), index(edges), index(rows + 1)),
            cell_shifts=torch.zeros(edges, 3, dtype=dtype, device=device),
            cells=torch.zeros(systems + 1, 3, 3, dtype=dtype, device=device),
            pbc=torch.zeros(systems + 1, 3, dtype=torch.bool, device=device),
            system=torch.full((rows,), systems, device=device),
            cutoff=model.cutoff,
            periodic=periodic,
            charge=torch.zeros(systems + 1, dtype=dtype, device=device),
            spin=torch.ones(systems + 1, dtype=dtype, device=device),
        )
        self._filled = 0  # atoms of the present graph
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def captured(self) -> bool:
        """Whether steps are replays of a CUDA graph."""
        return self._graph is not None

    @recording_allowed()
    def __call__(self, graph: NeighborGraph) -> dict[str, torch.Tensor]:
        """Energy `[B]` and forces `[n, 3]` of a graph, which takes the place of the one before."""
        self._fill(graph)
        return self.step(graph.positions)

    @recording_allowed()
    @in_operand_dtype
    @torch.no_grad()
    def step(self, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """Energy and forces of the present graph's atoms at other positions `[n, 3]`, by the same edges.

        The positions are the graph's with displacements, moved as a whole at will. In a dtype wider than the model's
        they keep their digits far from the origin.
        """
        check_floating("CapturedPotential", positions=positions)
        if transformed():
            raise RuntimeError(
                "CapturedPotential: a replay has no derivatives: call the model under torch.func or forward_ad"
            )
        if not self._filled or positions.shape != (self._filled, 3):
            raise ValueError(
                f"CapturedPotential: wants positions [{self._filled}, 3] of the last graph, got {list(positions.shape)}"
            )
        self._batch.positions[: self._filled].copy_(self._near_the_origin(positions))
        if self._batch.device.type == "cuda":
            if self._graph is None:
                self._capture()
            assert self._graph is not None
            self._graph.replay()
        else:
            self._results = self._compute()
        assert self._results is not None
        energy, forces = self._results
        return {"energy": energy[: self.systems].clone(), "forces": forces[: self._filled].clone()}

    def _near_the_origin(self, positions: torch.Tensor) -> torch.Tensor:
        if torch.finfo(positions.dtype).eps >= torch.finfo(self._batch.dtype).eps:
            return positions
        system = self._batch.system[: self._filled].to(positions.device)
        return centered(positions, system, self.systems)

    def _compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies `[B+1]` and forces of all rows: nothing here may wait for the GPU or read from it."""
        with torch.enable_grad(), frozen(self.model):
            positions = self._batch.positions.detach().requires_grad_()
            energy = self.model.energies(self._batch, self._batch.edge_vectors(positions), self._kinds)
            (by_positions,) = torch.autograd.grad(energy.sum(), positions)
        return energy.detach(), -by_positions

    def _capture(self) -> None:
        """Run on a stream of its own, where kernels are compiled and memory is found, then record."""
        stream = torch.cuda.Stream(self._batch.device)
        stream.wait_stream(torch.cuda.current_stream(self._batch.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._compute()
        torch.cuda.current_stream(self._batch.device).wait_stream(stream)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            self._results = self._compute()
        self._graph = recorded

    @torch.no_grad()
    def _fill(self, graph: NeighborGraph) -> None:
        """Copy a graph and its padding to where the computation reads them."""
        kinds = self._check(graph)
        b, n, e = self._batch, graph.num_atoms, graph.num_edges
        rows, spare = b.num_atoms, b.num_atoms - n
        place = torch.arange(spare, device=b.device)
        b.positions[n:] = 0.0
        b.positions[n:, 0] = 2 * b.cutoff * place.to(b.dtype)
        self._kinds[:n], self._kinds[n:] = kinds, 0
        b.system[:n], b.system[n:] = graph.system, self.systems
        b.cells[: self.systems].copy_(graph.cells)
        for name, usual in USUAL.items():
            given = getattr(graph, name)
            getattr(b, name)[: self.systems] = usual if given is None else given
        b.cell_shifts[:e], b.cell_shifts[e:] = graph.cell_shifts, 0.0
        # in ascending order, evenly over the atoms of the padding, each of which receives from the next
        to = torch.arange(self.edges - e, device=b.device) * spare // max(1, self.edges - e)
        index = graph.edges.tensors()
        receivers = torch.cat([index[0], n + to])
        senders = torch.cat([index[1], n + (to + 1) % spare])
        padded = EdgeIndex.of_sorted(receivers, senders, rows)
        for name in ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr"):
            getattr(b.edges, name).copy_(getattr(padded, name))
        b.edges.accept()
        b.accept()
        self._filled = n

    def _check(self, graph: NeighborGraph) -> torch.Tensor:
        """Index of each atom's species `[n]`."""
        for name, given, most in (
            ("atoms", graph.num_atoms, self.atoms),
            ("edges", graph.num_edges, self.edges),
        ):
            if given > most:
                raise ValueError(f"CapturedPotential: made for at most {most} {name}, the graph has {given}")
        if graph.num_systems != self.systems:
            raise ValueError(f"CapturedPotential: made for {self.systems} systems, the graph has {graph.num_systems}")
        if graph.periodic and not self._batch.periodic:
            raise ValueError("CapturedPotential: made with periodic=False, the graph has a periodic direction")
        longer = graph.cutoff > self.model.cutoff and self.model.config["layer"] == "default"
        return self.model._check(replace(graph, cutoff=self.model.cutoff) if longer else graph)
