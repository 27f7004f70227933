"""For tests of what atoms do that come close: a pair of them, the published repulsion, and a check of every route."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms

from sdas_kernels import dispatch
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, CapturedPotential, CompiledPotential


@pytest.fixture
def published() -> Callable[[int, int, float], float]:
    """`published(z1, z2, r)`: eV by Ziegler, Biersack and Littmark, from the formula in atomic units, not cut off."""

    def energy(z1: int, z2: int, r: float) -> float:
        bohr, hartree = 0.529177210903, 27.211386245988
        x = r / bohr / (0.8854 / (z1**0.23 + z2**0.23))
        phi = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
        phi += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
        return hartree * z1 * z2 / (r / bohr) * phi

    return energy


@pytest.fixture
def pair() -> Callable[..., NeighborGraph]:
    """`pair(z1, z2, distance, cutoff=4.0)`: two atoms, float64."""

    def graph(z1: int, z2: int, distance: float, cutoff: float = 4.0) -> NeighborGraph:
        places = [[0.0, 0.0, 0.0], [0.0, 0.6 * distance, 0.8 * distance]]
        return NeighborGraph.build(places, [z1, z2], cutoff, dtype=torch.float64)

    return graph


@pytest.fixture
def check_every_route(to_graph: Callable[..., NeighborGraph]) -> Callable[..., None]:
    """`check_every_route(model, atoms, stress_rel)`: forces and, where periodic, stress of kernel, operators, training,
    compiled and captured graphs are what differences of energies say. The model is left in training mode."""

    def check(model: SDAS, atoms: Atoms, stress_rel: float) -> None:
        graph, stress = to_graph(atoms), bool(atoms.pbc.all())

        def energy(displacement: np.ndarray, strain: np.ndarray) -> float:
            moved = atoms.copy()
            moved.positions = (atoms.positions + displacement) @ (np.eye(3) + strain)
            moved.set_cell(atoms.cell.array @ (np.eye(3) + strain))
            return float(model(to_graph(moved), forces=False)["energy"].detach())

        step, still, straight = 1e-5, np.zeros((len(atoms), 3)), np.zeros((3, 3))
        push, stretch = still.copy(), straight.copy()
        push[1], stretch[0, 1] = [0.6, 0.0, 0.8], 1.0
        whole = energy(still, straight)
        along = (energy(step * push, straight) - energy(-step * push, straight)) / (2 * step)
        strained = (energy(still, step * stretch) - energy(still, -step * stretch)) / (2 * step)
        results = {"evaluation": model(graph, stress=stress)}
        if model.config["layer"] == "default":
            results["compiled"] = CompiledPotential(model.train(), "eager")(graph, stress=stress)
            results["compiled, evaluated"] = CompiledPotential(model.eval(), "eager")(graph, stress=stress)
        results["captured"] = CapturedPotential(model, atoms=20, edges=4000)(graph)
        with dispatch.use_backend("reference"):
            results["operators"] = model(graph, stress=stress)
        results["training"] = model.train()(graph, stress=stress)
        for route, found in results.items():
            found = {what: value.detach() for what, value in found.items()}
            assert float(found["energy"]) == pytest.approx(whole, rel=1e-12), route
            assert float(-(found["forces"][1] * torch.tensor(push[1])).sum()) == pytest.approx(along, rel=1e-6), route
            if "stress" in found:
                by_strain = float(found["stress"][0, 0, 1]) * atoms.get_volume()
                assert by_strain == pytest.approx(strained, rel=stress_rel), route

    return check
