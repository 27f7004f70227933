"""What the tests of physical laws share: models of every kind, energies of many geometries at once, Hessians."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS

KINDS = {
    "default": {},
    "SE(3)": {"parity": False},
    "channel mixing": {"path_mixing": "channel"},
    "product": {"node_product": True},
    "no attention": {"attention": False},
    "paper": {"layer": "paper"},
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, make_model) -> SDAS:
    """A model of each kind in turn."""
    return make_model(**KINDS[request.param])


def graph_of(model: SDAS, atoms: Atoms) -> NeighborGraph:
    """The graph that the model takes, its neighbors found anew."""
    cell = atoms.cell.array if atoms.cell.rank == 3 else None
    dtype = model.embedding.weight.dtype
    return NeighborGraph.build(atoms.positions, atoms.numbers, model.cutoff, cell, atoms.pbc, dtype=dtype)


def energies(model: SDAS, geometries: list[Atoms]) -> np.ndarray:
    """Energy of each geometry, eV."""
    with torch.no_grad():
        return model(NeighborGraph.batch([graph_of(model, a) for a in geometries]), forces=False)["energy"].numpy()


def evaluate(model: SDAS, atoms: Atoms, stress: bool = False) -> dict[str, np.ndarray]:
    """Energy (a number), forces, and stress if asked for."""
    found = {name: t.detach().numpy() for name, t in model(graph_of(model, atoms), stress=stress).items()}
    return {**found, "energy": found["energy"][0], **({"stress": found["stress"][0]} if stress else {})}


def slope(model: SDAS, move, step: float = 2e-4) -> float:
    """dE/ds at s = 0 along `move(s) -> Atoms`, by central differences of fourth order; neighbors found anew."""
    e = energies(model, [move(k * step) for k in (-2, -1, 1, 2)])
    return float(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)


def hessian(model: SDAS, atoms: Atoms) -> np.ndarray:
    """∂²E/∂r∂r `[3n, 3n]`, row by row through the forces."""
    graph = graph_of(model, atoms)
    graph.positions.requires_grad_()
    forces = model(graph)["forces"].flatten()
    rows = [
        torch.autograd.grad(-f, graph.positions, retain_graph=True, materialize_grads=True)[0].flatten() for f in forces
    ]
    return torch.stack(rows).detach().numpy()


@pytest.fixture
def physics() -> SimpleNamespace:
    """The functions above, for the test modules."""
    return SimpleNamespace(energies=energies, evaluate=evaluate, graph_of=graph_of, hessian=hessian, slope=slope)
