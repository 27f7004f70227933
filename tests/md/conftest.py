"""A pair potential with the model's call, so that the tests of dynamics depend on no weights."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms

from sdas_kernels.graph import NeighborGraph


class PairPotential(torch.nn.Module):
    """Morse potential, E = Σ_pairs D (1 − exp(−a (d − d0)))² · (1 − (d / cutoff)²)³: smooth at the cutoff."""

    def __init__(self, species: tuple[int, ...] = (8,), cutoff: float = 4.0) -> None:
        super().__init__()
        self.species, self.cutoff = species, cutoff
        self.depth = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, graph: NeighborGraph, forces: bool = True, stress: bool = False) -> dict[str, torch.Tensor]:
        positions = graph.positions.detach().requires_grad_()
        strain = positions.new_zeros(graph.num_systems, 3, 3, requires_grad=True)
        deform = torch.eye(3, dtype=positions.dtype) + (strain + strain.transpose(1, 2)) / 2
        moved = torch.einsum("ia,iab->ib", positions, deform[graph.system])
        d = graph.edge_vectors(moved, graph.cells @ deform).norm(dim=1)
        pair = self.depth * (1 - torch.exp(-2.0 * (d - 1.2))) ** 2 * (1 - (d / self.cutoff) ** 2) ** 3 / 2
        energy = torch.zeros(graph.num_systems, dtype=positions.dtype)
        energy = energy.index_add(0, graph.system[graph.receivers], pair)
        by_position, by_strain = torch.autograd.grad(energy.sum(), [positions, strain])
        out = {"energy": energy.detach().double(), "forces": -by_position}
        if stress:
            out["stress"] = by_strain / torch.linalg.det(graph.cells).abs()[:, None, None]
        return out


@pytest.fixture
def pair_potential() -> PairPotential:
    return PairPotential()


@pytest.fixture
def molecule() -> Atoms:
    """Three atoms near their minimum."""
    return Atoms("O3", positions=[[0.0, 0.0, 0.0], [1.25, 0.1, 0.0], [0.5, 1.05, 0.15]])


@pytest.fixture
def crystal() -> Atoms:
    """A small skewed periodic cell, smaller than the cutoff, with atoms off their sites."""
    cell = [[3.1, 0.0, 0.2], [0.4, 2.9, 0.0], [0.0, 0.3, 3.3]]
    return Atoms("O2", scaled_positions=[[0.02, 0.05, 0.0], [0.45, 0.5, 0.55]], cell=cell, pbc=True)
