"""A graph from a list that was made steps ago is the graph that would be found anew."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from sdas.errors import SdasError
from sdas.md.systems import Systems
from sdas.md.verlet_list import NoNeighborsError, VerletList
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import FrozenPotential

CUTOFF = 4.0


def graphs_anew(systems, dtype=torch.float64):
    graphs = []
    for row, (first, last) in enumerate(zip(systems.starts, systems.starts[1:], strict=False)):
        cell = systems.cells[row] if systems.pbc[row].any() else None
        place = systems.positions[first:last]
        graphs.append(NeighborGraph.build(place, systems.numbers[first:last], CUTOFF, cell, systems.pbc[row], dtype))
    return graphs


def found_anew(systems, dtype=torch.float64):
    return NeighborGraph.batch(graphs_anew(systems, dtype))


def assert_same(graph, wanted):
    for name in ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr"):
        assert torch.equal(getattr(graph.edges, name), getattr(wanted.edges, name)), name
    for name in ("numbers", "system", "pbc"):
        assert torch.equal(getattr(graph, name), getattr(wanted, name)), name
    torch.testing.assert_close(graph.edge_vectors(), wanted.edge_vectors(), rtol=1e-5, atol=1e-5)
    assert graph.cutoff == wanted.cutoff


@pytest.fixture
def mixed(systems):
    """A molecule, a liquid, a small skewed cell and a slab."""
    return Systems.of([systems[name] for name in ("molecule", "liquid", "small cell", "slab")])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_graph_found_anew_while_atoms_and_cells_move(mixed, dtype):
    generator, neighbors, edges = np.random.default_rng(0), VerletList(CUTOFF, 0.5, dtype), set()
    for step in range(40):
        graph = neighbors.graph(mixed)
        assert_same(graph, found_anew(mixed, dtype))
        edges.add(graph.num_edges)
        mixed.positions += 0.02 * torch.from_numpy(generator.standard_normal(mixed.positions.shape))
        mixed.cells[1:3] *= 1 + 0.002 * torch.from_numpy(generator.standard_normal((2, 1, 3)))
        mixed.positions += 0.3 * (step == 20)
    assert len(edges) > 10, "the test needs atoms that cross the cutoff"
    assert 8 <= neighbors.built < 60, "each system is found again by itself, and not at each step"


def test_a_shrunken_cell_is_found_again_although_no_atom_moved_in_it(mixed):
    neighbors = VerletList(CUTOFF, 0.3)
    neighbors.graph(mixed)
    for _ in range(6):
        mixed.cells[1:3] *= 0.97
        for row in (1, 2):
            mixed.positions[mixed.starts[row] : mixed.starts[row + 1]] *= 0.97
        assert_same(neighbors.graph(mixed), found_anew(mixed))
    assert neighbors.built > 4 + 2


def test_a_pair_that_was_not_listed_is_found_when_it_comes_near():
    """Two atoms fly at each other: after half the skin each, the list does not hold any more."""
    systems = Systems.of([Atoms("O2", [[0, 0, 0], [CUTOFF + 0.51, 0, 0]])])
    neighbors, seen = VerletList(CUTOFF, 0.5), []
    for _ in range(60):
        seen.append(neighbors.graph(systems).num_edges)
        assert seen[-1] == found_anew(systems).num_edges
        systems.positions += torch.tensor([[0.01, 0, 0], [-0.01, 0, 0]], dtype=torch.float64)
    assert (seen[0], seen[-1]) == (0, 2)


def test_the_same_edges_are_not_made_again_while_none_crosses_the_cutoff():
    systems = Systems.of([molecule("H2O")])
    neighbors = VerletList(CUTOFF, 0.5)
    first = neighbors.graph(systems)
    systems.positions += 0.01
    second = neighbors.graph(systems)
    assert second.edges is first.edges
    assert neighbors.built == 1


def test_the_closest_distance_is_told_for_each_system():
    systems = Systems.of([Atoms("O2", [[0, 0, 0], [0, 0, 1.3]]), Atoms("O"), Atoms("H2", [[0, 0, 0], [0.7, 0, 0]])])
    neighbors = VerletList(CUTOFF, 0.5)
    neighbors.graph(systems)
    assert neighbors.closest.tolist() == pytest.approx([1.3, float("inf"), 0.7])


@pytest.mark.parametrize(("place", "words"), [(float("nan"), "not finite"), (1e-6, "overlap")])
@pytest.mark.parametrize("later", [False, True])
def test_a_system_without_neighbors_is_named(place, words, later):
    systems = Systems.of([Atoms("O2", [[0, 0, 0], [0, 0, 1.3]]) for _ in range(3)])
    neighbors = VerletList(CUTOFF, 0.5)
    if later:
        systems.positions[3, 2] = 0.2
        neighbors.graph(systems)
    systems.positions[3, 2] = place
    with pytest.raises(NoNeighborsError, match=words) as caught:
        neighbors.graph(systems)
    assert caught.value.row == 1
    copy = pickle.loads(pickle.dumps(caught.value))  # as it comes from another process
    assert (copy.row, str(copy)) == (1, str(caught.value))
    systems.positions[3, 2] = 1.3
    assert neighbors.graph(systems).num_edges == 6


def test_a_potential_gives_what_the_model_gives_for_graphs_found_anew(mixed, make_model):
    """To the bit, while atoms and cells move, and when other systems come in between."""
    model, generator, edges = make_model(cutoff=CUTOFF).eval(), np.random.default_rng(0), set()
    potential, neighbors = FrozenPotential.of(model), VerletList(CUTOFF, 0.5)
    for step in range(24):
        found, graphs = neighbors.evaluate(potential, mixed), graphs_anew(mixed)
        edges.add(sum(graph.num_edges for graph in graphs))
        wanted = [model(graph) for graph in graphs]
        for name in ("energy", "forces"):
            assert torch.equal(found[name], torch.cat([each[name] for each in wanted])), name
        mixed.positions += 0.02 * torch.from_numpy(generator.standard_normal(mixed.positions.shape))
        if step % 4 == 0:
            mixed.cells[1:3] *= 1 + 0.002 * torch.from_numpy(generator.standard_normal((2, 1, 3)))
        if step == 12:
            neighbors.evaluate(potential, mixed.rows([1]))
    assert len(edges) > 10, "the test needs atoms that cross the cutoff"
    assert neighbors.built < 48, "each system is found again by itself, and not at each step"


def test_other_elements_at_the_same_places_are_seen(mixed, make_model):
    model, neighbors = make_model(cutoff=CUTOFF).eval(), VerletList(CUTOFF, 0.5)
    potential = FrozenPotential.of(model)
    before = neighbors.evaluate(potential, mixed)["energy"]
    mixed.numbers[0] = 1 if mixed.numbers[0] == 8 else 8
    after = neighbors.evaluate(potential, mixed)["energy"]
    assert (before != after).tolist() == [True, False, False, False]


@pytest.mark.parametrize(("place", "words"), [(float("nan"), "not finite"), (1e-6, "overlap")])
@pytest.mark.parametrize("later", [False, True])
def test_a_potential_names_a_system_without_neighbors(place, words, later, make_model):
    systems = Systems.of([Atoms("O2", [[0, 0, 0], [0, 0, 1.3]]) for _ in range(3)])
    neighbors, potential = VerletList(CUTOFF, 3.0), FrozenPotential.of(make_model(cutoff=CUTOFF).eval())
    if later:  # the list still holds when they meet
        neighbors.evaluate(potential, systems)
    systems.positions[3, 2] = place
    with pytest.raises(NoNeighborsError, match=words) as caught:
        neighbors.evaluate(potential, systems)
    assert caught.value.row == 1
    systems.positions[3, 2] = 1.3
    assert neighbors.evaluate(potential, systems)["closest"].tolist() == pytest.approx([1.3] * 3)


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_a_skin_that_is_none_is_refused(skin):
    with pytest.raises(SdasError, match="skin must be a length"):
        VerletList(CUTOFF, skin)
