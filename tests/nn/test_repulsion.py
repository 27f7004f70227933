"""Nuclei repel as the published formula says, on every route, and models without it are as they were."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii

from sdas.run.checkpoint import load_model, save_model
from sdas_kernels.elements import COVALENT_RADII_PM
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, grow
from sdas_kernels.nn.repulsion import Repulsion

F64 = torch.float64


def repulsion_of(graph: NeighborGraph, species: list[int]) -> torch.Tensor:
    kinds = torch.tensor([species.index(int(z)) for z in graph.numbers])
    return Repulsion(species)(graph.edge_vectors(), graph, kinds)


@pytest.mark.parametrize(("z1", "z2"), [(1, 1), (1, 8), (6, 8), (26, 79)])
def test_a_close_pair_has_the_published_energy(z1, z2, pair, published):
    """At a tenth of its reach the cutoff takes 3 · 10⁻⁵ of it; from 0.9 of the covalent radii on nothing is left."""
    bond = 0.9 * (covalent_radii[z1] + covalent_radii[z2])
    species = sorted({z1, z2})
    found = repulsion_of(pair(z1, z2, 0.1 * bond), species)
    assert float(found) == pytest.approx(published(z1, z2, 0.1 * bond), rel=2e-4)
    half = repulsion_of(pair(z1, z2, 0.5 * bond), species)
    left = 1 - 28 * 0.5**6 + 48 * 0.5**7 - 21 * 0.5**8
    assert float(half) == pytest.approx(published(z1, z2, 0.5 * bond) * left, rel=1e-4)
    assert repulsion_of(pair(z1, z2, 1.0001 * bond), species).tolist() == [0.0]


def test_two_neon_atoms_repel_as_electrons_say(published):
    """Hartree–Fock of closed shells, pressed into one another. The formula is off by some ten percent as published."""
    gto = pytest.importorskip("pyscf.gto", reason="PYSCF ABSENT: no electrons")
    from pyscf import scf

    def energy(atoms: str) -> float:
        return float(scf.RHF(gto.M(atom=atoms, basis="def2-tzvp", verbose=0)).kernel()) * 27.211386

    distance = 0.5
    electrons = energy(f"Ne 0 0 0; Ne 0 0 {distance}") - 2 * energy("Ne 0 0 0")
    assert published(10, 10, distance) == pytest.approx(electrons, rel=0.2)


def test_radii_are_those_of_the_table():
    np.testing.assert_allclose(np.array(COVALENT_RADII_PM) / 100, covalent_radii[1:97], atol=1e-9)


def pressed(atoms: Atoms) -> Atoms:
    """To half of its size, so that covalent radii overlap."""
    atoms.set_cell(0.5 * atoms.cell.array)
    atoms.positions *= 0.5
    return atoms


@pytest.mark.parametrize(
    ("name", "layer"), [("molecule", "default"), ("small cell", "default"), ("small cell", "paper")]
)
def test_every_route_adds_it_with_its_derivatives(make_model, systems, to_graph, layer, name, check_every_route):
    """Forces and stress of kernel, operators, training, compiled and captured graphs, by differences of energies."""
    atoms = pressed(systems[name])
    model = make_model(layer=layer, repulsion="zbl")
    graph = to_graph(atoms)
    assert float(model(graph)["energy"] - make_model(layer=layer)(graph)["energy"]) > 1
    check_every_route(model, atoms, stress_rel=1e-6)


def test_a_curvature_is_the_derivative_of_a_force(make_model, systems, to_graph):
    """As a loss on Hessians and `positions.requires_grad` want it."""
    model, graph = make_model(repulsion="zbl"), to_graph(pressed(systems["molecule"]))

    def forces(positions: torch.Tensor) -> torch.Tensor:
        return model(replace(graph, positions=positions))["forces"]

    positions = graph.positions.clone().requires_grad_()
    (found,) = torch.autograd.grad(forces(positions)[0, 2], positions)
    step = torch.zeros_like(graph.positions)
    step[1, 0] = 1e-5
    by_difference = (forces(graph.positions + step) - forces(graph.positions - step))[0, 2] / 2e-5
    assert float(found[1, 0]) == pytest.approx(float(by_difference), rel=1e-5)


def test_it_is_kept_in_files_by_growth_and_in_float32(make_model, systems, to_graph, tmp_path):
    model, graph = make_model(repulsion="zbl"), to_graph(pressed(systems["molecule"]))
    wanted = model(graph)
    save_model(tmp_path / "model", model)
    read = load_model(tmp_path / "model")
    for other in (read.to(F64), grow(model, channels=12), copy.deepcopy(model).float().double()):
        torch.testing.assert_close(other(graph)["energy"], wanted["energy"], rtol=1e-7, atol=1e-6)
    single = model.float()(graph.to(dtype=torch.float32))
    torch.testing.assert_close(single["forces"].double(), wanted["forces"], rtol=1e-4, atol=1e-3)


def test_a_model_without_it_is_as_it_was(make_model):
    plain, repelling = make_model(), make_model(repulsion="zbl")
    assert "repulsion" not in plain.config
    older = {name: tensor for name, tensor in plain.state_dict().items() if name != "_extra_state"}
    assert set(repelling.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(older)
    with pytest.raises(RuntimeError, match="repulsion None there, zbl here"):
        repelling.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match='must be "zbl", "inner-cutoff" or None, got \'born\''):
        make_model(repulsion="born")
    with pytest.raises(ValueError, match="covalent radii, which end at Cm; got Bk"):
        SDAS(species=[1, 97], repulsion="zbl")
