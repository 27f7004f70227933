"""A pair potential with a model's call that passes, and ways to break it on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from sdas.data import Frame
from sdas.predict import predict
from sdas.validate.subject import Subject
from sdas_kernels.graph import NeighborGraph


class PairPotential(torch.nn.Module):
    """E = Σ_pairs (1 − exp(d0 − d))² (1 − (d / cutoff)²)³ eV, d0 of each pair of elements: smooth at the cutoff.

    Faults by name: terms of the energy, or things done to forces and stress, that no potential may have.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__()
        self.faults, self.species, self.cutoff = faults, (1, 8), 4.0
        self.depth = torch.nn.Parameter(torch.tensor(1.0))

    def energy(self, graph: NeighborGraph, positions: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        vectors = graph.edge_vectors(positions, cells)
        d, edges = vectors.norm(dim=1), graph.edges
        hydrogens = (graph.numbers[edges.receivers] == 1).int() + (graph.numbers[edges.senders] == 1).int()
        d0 = torch.tensor([1.5, 1.0, 2.5], dtype=d.dtype)[hydrogens]
        smooth = (1 - (d / self.cutoff) ** 2) ** 3
        pair = self.depth * (1 - torch.exp(d0 - d)) ** 2 * smooth / 2
        if "hole" in self.faults:
            pair = pair - 9 * torch.exp(-((d / 0.5) ** 2))
        if "jump" in self.faults:
            pair = pair + 0.002
        if "kink" in self.faults:
            pair = pair + 0.5 * (d - 2.2).abs() * smooth
        if "axis" in self.faults:
            pair = pair + 0.01 * vectors[:, 0] ** 2 * smooth
        if "order" in self.faults:
            pair = pair + 0.01 * edges.receivers * smooth
        energy = torch.zeros(graph.num_systems, dtype=d.dtype).index_add(0, graph.system[edges.receivers], pair)
        if "square" in self.faults:
            energy = energy + 0.01 * energy**2
        if "hand" in self.faults:
            arms = positions.view(graph.num_systems, -1, 3)[:, 1:4] - positions.view(graph.num_systems, -1, 3)[:, :1]
            energy = energy + 0.1 * torch.linalg.det(arms)
        if "place" in self.faults:
            energy = energy.index_add(0, graph.system, 0.01 * positions[:, 0])
        return energy

    def forward(self, graph: NeighborGraph, forces: bool = True, stress: bool = False) -> dict[str, torch.Tensor]:
        positions = graph.positions.detach().requires_grad_()
        strain = positions.new_zeros(graph.num_systems, 3, 3, requires_grad=True)
        stretch = torch.eye(3, dtype=positions.dtype) + (strain + strain.transpose(1, 2)) / 2
        with torch.enable_grad():
            moved = torch.einsum("ia,iab->ib", positions, stretch[graph.system])
            energy = self.energy(graph, moved, graph.cells @ stretch)
            by_position, by_strain = torch.autograd.grad(energy.sum(), [positions, strain])
        out = {"energy": energy.detach().double(), "forces": -by_position.detach()}
        if "swirl" in self.faults:  # a force that is no gradient
            axis = positions.new_tensor([0.0, 0.0, 0.5]).expand_as(positions)
            first = torch.searchsorted(graph.system, graph.system)  # of each system
            out["forces"] = out["forces"] + torch.linalg.cross(axis, positions.detach() - positions.detach()[first])
        if stress:
            volume = torch.linalg.det(graph.cells).abs()[:, None, None]
            out["stress"] = by_strain / volume * (1.1 if "stress" in self.faults else 1.0)
        return out


def frame_of(atoms: Any, source: str) -> Frame:
    pbc = np.array(atoms.pbc)
    cell = np.array(atoms.cell.array) if pbc.any() else None
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, pbc, None, None, None, source)


@pytest.fixture
def frames() -> list[Frame]:
    """Hydrogen peroxide, shaken, with the labels of the potential without faults."""
    rng, found = np.random.default_rng(0), []
    for number in range(3):
        atoms = molecule("H2O2")
        atoms.rattle(0.03, rng=rng)
        frame = frame_of(atoms, f"H2O2: frame {number}")
        labels = predict(PairPotential().double(), [frame])
        found.append(
            Frame(
                frame.numbers, frame.positions, None, frame.pbc, float(labels.energy[0]), labels.forces, None,
                frame.source,
            )
        )  # fmt: skip
    return found


@pytest.fixture
def subject(frames: list[Frame]) -> Callable[..., Subject]:
    """`subject(*faults)`: the potential with these faults."""

    def make(*faults: str) -> Subject:
        return Subject.of(PairPotential(*faults), frames)

    return make


@pytest.fixture
def pair_potential() -> type[PairPotential]:
    return PairPotential


@pytest.fixture
def cell(systems: dict[str, Any]) -> Frame:
    """A liquid of water."""
    return frame_of(systems["liquid"], "water")
