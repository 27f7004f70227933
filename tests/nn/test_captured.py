"""A captured potential: padding changes nothing, whatever graph fills it. On a GPU it is captured and replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import CapturedPotential

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("NO GPU: no CUDA graph is captured")
    return request.param


def assert_same(found, wanted, tolerance=1e-11):
    for name in ("energy", "forces"):
        scale = max(1.0, wanted[name].abs().max().item())
        assert found[name].shape == wanted[name].shape
        assert (found[name] - wanted[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("layer", ["default", "paper"])
def test_every_kind_of_system_gets_its_energy_and_forces(systems, to_graph, make_model, device, layer):
    model = make_model(layer=layer).to(device)
    captured = CapturedPotential(model, atoms=24, edges=2000)
    for atoms in systems.values():
        graph = to_graph(atoms).to(device)
        assert_same(captured(graph), model(graph))
    assert captured.captured == (device == "cuda")


def test_steps_follow_positions(systems, to_graph, make_model, device):
    model, graph = make_model().to(device), to_graph(systems["molecule"]).to(device)
    captured = CapturedPotential(model, graph.num_atoms, graph.num_edges, periodic=False)
    captured(graph)
    for _ in range(3):
        moved = graph.positions + 0.01 * torch.randn_like(graph.positions)
        positions = graph.edge_vectors(moved)
        energy = model.energies(graph, positions, model._species_of_number[graph.numbers])
        found = captured.step(moved)
        torch.testing.assert_close(found["energy"], energy.detach(), rtol=1e-12, atol=0)


def test_steps_of_a_float32_model_keep_the_digits_of_float64_positions(systems, make_model, device):
    model, atoms = make_model(torch.float32).to(device), systems["liquid"]

    def forces(distance):
        r = torch.from_numpy(atoms.positions + distance * np.array([1.0, -0.6, 0.3])).to(device)
        graph = NeighborGraph.build(r, atoms.numbers, model.cutoff, atoms.cell.array, True, torch.float32)
        captured = CapturedPotential(model, graph.num_atoms, graph.num_edges)
        captured(graph)
        return captured.step(r)["forces"]

    for distance in (120.0, 12_000.0):
        torch.testing.assert_close(forces(distance), forces(0.0), rtol=0, atol=1e-5)


def test_padding_adds_exactly_nothing(systems, to_graph, make_model):
    """Whatever the atoms of the padding are and wherever they stand, no bit of a real atom's result changes."""
    model, graph = make_model(), to_graph(systems["liquid"])
    captured = CapturedPotential(model, graph.num_atoms + 7, graph.num_edges + 90)
    first = captured(graph)
    n = graph.num_atoms
    captured._batch.positions[n:] = torch.randn_like(captured._batch.positions[n:])
    captured._kinds[n:] = 2
    second = captured.step(graph.positions)
    for name in first:
        assert torch.equal(first[name], second[name])


def test_edges_beyond_the_cutoff_have_no_weight(systems, make_model, device):
    """A list with a skin serves while atoms move less than half of it."""
    model, atoms = make_model().to(device), systems["liquid"]

    def graph(cutoff):
        return NeighborGraph.build(
            atoms.positions, atoms.numbers, cutoff, atoms.cell.array, True, torch.float64, device
        )

    wide = graph(model.cutoff + 0.6)
    captured = CapturedPotential(model, wide.num_atoms, wide.num_edges)
    assert_same(captured(wide), model(graph(model.cutoff)))


def test_batches(systems, to_graph, make_model, device):
    model = make_model().to(device)
    graph = NeighborGraph.batch([to_graph(systems[name]) for name in ("molecule", "slab")]).to(device)
    captured = CapturedPotential(model, 30, 1000, systems=2)
    assert_same(captured(graph), model(graph))


def test_what_does_not_fit_is_an_error(systems, to_graph, make_model):
    model, graph = make_model(), to_graph(systems["liquid"])
    with pytest.raises(ValueError, match=r"at most 23 atoms, the graph has 24"):
        CapturedPotential(model, 23, 10_000)(graph)
    with pytest.raises(ValueError, match=r"at most 5 edges"):
        CapturedPotential(model, 24, 5)(graph)
    with pytest.raises(ValueError, match="2 systems, the graph has 1"):
        CapturedPotential(model, 24, 10_000, systems=2)(graph)
    with pytest.raises(ValueError, match="periodic=False"):
        CapturedPotential(model, 24, 10_000, periodic=False)(graph)
    with pytest.raises(ValueError, match="eval mode"):
        CapturedPotential(make_model().train(), 24, 100)
    with pytest.raises(ValueError, match="at least 1"):
        CapturedPotential(model, 0, 100)
    captured = CapturedPotential(model, 24, 10_000)
    with pytest.raises(ValueError, match="of the last graph"):
        captured.step(graph.positions)
    with pytest.raises(ValueError, match="cutoff"):
        CapturedPotential(make_model(layer="paper"), 24, 10_000)(to_graph(systems["liquid"], 5.0))
