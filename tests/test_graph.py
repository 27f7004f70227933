"""Neighbor graphs: the pairs that ASE finds, pointers that agree, batches that never join, and errors for bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from sdas_kernels.graph import EdgeIndex, NeighborGraph


def pairs_of(graph):
    """Sorted (receiver, sender, cell shift) rows."""
    index = torch.stack([graph.receivers, graph.senders], 1)
    return sorted(map(tuple, torch.cat([index, graph.cell_shifts.long()], 1).tolist()))


def assert_finds_what_ase_finds(graph, atoms, cutoff):
    i, j, shifts, vectors = neighbor_list("ijSD", atoms, cutoff)
    assert pairs_of(graph) == sorted(zip(i.tolist(), j.tolist(), *shifts.T.tolist(), strict=True))
    key = np.lexsort((*graph.cell_shifts.T.numpy()[::-1], graph.senders.numpy(), graph.receivers.numpy()))
    ase_key = np.lexsort((*shifts.T[::-1], j, i))
    np.testing.assert_allclose(graph.edge_vectors().numpy()[key], vectors[ase_key], atol=1e-10)


def assert_consistent(edges: EdgeIndex):
    receivers, senders, row_ptr, order, sender_ptr = (t.tolist() for t in edges.tensors())
    n = edges.num_nodes
    assert receivers == sorted(receivers)
    assert sorted(order) == list(range(edges.num_edges))
    assert row_ptr[0] == sender_ptr[0] == 0
    assert row_ptr[-1] == sender_ptr[-1] == edges.num_edges == len(receivers)
    for node in range(n):
        assert all(receivers[e] == node for e in range(row_ptr[node], row_ptr[node + 1]))
        mine = order[sender_ptr[node] : sender_ptr[node + 1]]
        assert all(senders[e] == node for e in mine)
        assert mine == sorted(mine)
    assert all(t.dtype == torch.int64 for t in edges.tensors())


@pytest.mark.parametrize("cutoff", [1.7, 4.0, 7.3])
def test_neighbors_are_ases(atoms, to_graph, cutoff):
    graph = to_graph(atoms, cutoff)
    assert_finds_what_ase_finds(graph, atoms, cutoff)
    assert_consistent(graph.edges)


def test_neighbors_of_a_real_slab_are_ases(shared_data, to_graph):
    """Gold on magnesium oxide, 110 atoms; the structure is periodic along all directions."""
    frames = np.load(shared_data / "slab" / "AuMgO_test_solid.npz")
    atoms = Atoms(frames["z"][0], frames["R"][0], cell=frames["unit_cell"][0], pbc=True)
    graph = to_graph(atoms, 5.0)
    assert_finds_what_ase_finds(graph, atoms, 5.0)
    assert_consistent(graph.edges)


@pytest.mark.parametrize("pbc", [(True, False, False), (False, True, True), (False, False, False), (True, True, True)])
def test_mixed_periodicity_in_a_skewed_cell(systems, to_graph, pbc):
    atoms = systems["small cell"]
    atoms.pbc = pbc
    assert_finds_what_ase_finds(to_graph(atoms, 4.5), atoms, 4.5)


@pytest.mark.parametrize("free", [[0.0, 0, 0], [0.0, 0, 1e-3], [5.0, 0, 0]], ids=["none", "tiny", "parallel"])
def test_the_cell_vector_of_a_free_direction_does_not_matter(free):
    """Not given, shorter than the system, or parallel to a periodic one."""
    r, rows = [[0, 0, 0], [1.0, 0.5, 7.0]], [[2.5, 0, 0], [0.3, 2.7, 0]]
    graph = NeighborGraph.build(r, [6, 8], 7.6, [*rows, free], [True, True, False], dtype=torch.float64)
    assert_finds_what_ase_finds(graph, Atoms("CO", r, cell=[*rows, [0, 0, 0]], pbc=[1, 1, 0]), 7.6)


def test_atoms_outside_the_cell(systems, to_graph):
    atoms = systems["liquid"]
    inside = to_graph(atoms)
    random = np.random.default_rng(0)
    moved = atoms.copy()
    moved.positions += random.integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    assert_finds_what_ase_finds(to_graph(moved), moved, 4.0)
    distances = [torch.linalg.vector_norm(g.edge_vectors(), dim=1).sort().values for g in (inside, to_graph(moved))]
    torch.testing.assert_close(*distances, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), pbc=st.tuples(*[st.booleans()] * 3))
def test_random_cells_agree_with_ase(seed, n, pbc):
    random = np.random.default_rng(seed)
    cell = np.diag(random.uniform(2, 5, 3)) + random.uniform(-0.9, 0.9, (3, 3))
    atoms = Atoms("O" * n, random.uniform(-6, 6, (n, 3)), cell=cell, pbc=pbc)
    d = neighbor_list("d", atoms, 4.2)
    if len(d) and d.min() < 1e-3:
        return
    graph = NeighborGraph.build(atoms.positions, atoms.numbers, 4.2, cell, pbc, dtype=torch.float64)
    assert_finds_what_ase_finds(graph, atoms, 4.2)


def test_images_of_an_atom_are_its_neighbors():
    """Face-centered cubic with one atom in the cell: 12 nearest neighbors and 6 next, all of them images."""
    cell = 3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    graph = NeighborGraph.build([[0.0, 0, 0]], [29], 3.7, cell, dtype=torch.float64)
    assert graph.num_edges == 18
    assert graph.senders.tolist() == [0] * 18
    lengths = torch.linalg.vector_norm(graph.edge_vectors(), dim=1)
    assert (lengths < 3.61 / math.sqrt(2) + 1e-9).sum() == 12


def test_edges_come_in_opposite_pairs(atoms, to_graph):
    rows = set(pairs_of(to_graph(atoms)))
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in rows} == rows


def test_no_edges_and_one_atom(systems, to_graph):
    for name in ("one atom", "no edges"):
        graph = to_graph(systems[name])
        assert graph.num_edges == 0
        assert graph.edge_vectors().shape == (0, 3)
        assert graph.edges.row_ptr.tolist() == [0] * (graph.num_atoms + 1)


def test_batch_is_every_system_by_itself(systems, to_graph):
    graphs = [to_graph(atoms) for atoms in systems.values()]
    batch = NeighborGraph.batch(graphs)
    assert_consistent(batch.edges)
    assert (batch.system[batch.receivers] == batch.system[batch.senders]).all()
    assert batch.num_systems == len(graphs)
    assert batch.num_atoms == sum(g.num_atoms for g in graphs)
    assert torch.equal(batch.edge_vectors(), torch.cat([g.edge_vectors() for g in graphs]))
    assert batch.periodic
    start = 0
    for k, graph in enumerate(graphs):
        own = batch.system == k
        assert torch.equal(batch.numbers[own], graph.numbers)
        mine = own[batch.receivers]
        assert torch.equal(batch.senders[mine] - start, graph.senders)
        start += graph.num_atoms
    again = NeighborGraph.batch([NeighborGraph.batch(graphs[:2]), NeighborGraph.batch(graphs[2:])])
    for a, b in zip(again.edges.tensors(), batch.edges.tensors(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(again.system, batch.system)


def test_batch_refuses_what_does_not_go_together(systems, to_graph):
    atoms = systems["molecule"]
    for other, message in (
        (to_graph(atoms, 5.0), "graph 1 has cutoff 5.0, graph 0 has 4.0"),
        (to_graph(atoms, dtype=torch.float32), "graph 1 has dtype torch.float32, graph 0 has torch.float64"),
        (to_graph(atoms).to("meta"), "graph 1 has device meta, graph 0 has cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            NeighborGraph.batch([to_graph(atoms), other])
    with pytest.raises(ValueError, match="at least one graph"):
        NeighborGraph.batch([])


def test_to_moves_and_converts_every_tensor(systems, to_graph):
    graph = NeighborGraph.batch([to_graph(systems["liquid"]), to_graph(systems["molecule"])])
    single = graph.to(dtype=torch.float32)
    assert single.dtype == single.cells.dtype == single.cell_shifts.dtype == torch.float32
    assert single.senders.dtype == single.numbers.dtype == single.system.dtype == torch.int64
    assert single.pbc.dtype == torch.bool
    assert pairs_of(single) == pairs_of(graph)
    elsewhere = graph.to("meta")
    held = [*elsewhere.edges.tensors(), elsewhere.positions, elsewhere.numbers, elsewhere.cell_shifts]
    held += [elsewhere.cells, elsewhere.pbc, elsewhere.system]
    assert all(t.device.type == "meta" for t in held)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_that_of_the_positions(dtype):
    positions = torch.tensor([[0.0, 0, 0], [1.1, 0, 0]], dtype=dtype, requires_grad=True)
    graph = NeighborGraph.build(positions, torch.tensor([1, 8]), 3.0)
    assert graph.dtype == dtype
    assert not graph.positions.requires_grad
    assert NeighborGraph.build(positions.tolist(), [1, 8], 3.0).dtype == torch.get_default_dtype()


def test_a_graph_owns_its_numbers():
    """Arrays that it was built from may change afterwards."""
    given = [np.array([[0.0, 0, 0], [1.1, 0, 0]]), np.array([1, 8]), 5.0 * np.eye(3), np.array([True, False, True])]
    graph = NeighborGraph.build(given[0], given[1], 3.0, given[2], given[3], dtype=torch.float64)
    before = [t.clone() for t in (graph.positions, graph.numbers, graph.cells, graph.pbc)]
    for array in given:
        array[:] = 1 - array
    for t, copy in zip((graph.positions, graph.numbers, graph.cells, graph.pbc), before, strict=True):
        assert torch.equal(t, copy)


def test_edge_vectors_differentiate_by_positions_and_cells(systems, to_graph):
    graph = NeighborGraph.batch([to_graph(systems["small cell"], 3.5), to_graph(systems["slab"], 3.5)])
    positions, cells = (t.clone().requires_grad_() for t in (graph.positions, graph.cells))
    assert torch.autograd.gradcheck(graph.edge_vectors, (positions, cells))


@pytest.mark.parametrize("names", [["small cell"], ["small cell", "molecule", "slab"]])
@pytest.mark.parametrize("operand", ["positions", "cells"])
def test_edge_vectors_are_positions_and_whole_cells(systems, to_graph, names, operand):
    """Values and both derivatives, of one system and of several, and the same bits in a batch."""
    graphs = [to_graph(systems[name], 7.5) for name in names]
    graph = NeighborGraph.batch(graphs)
    assert graph.cell_shifts.abs().max() >= 3
    i, j, box = graph.receivers, graph.senders, graph.cells[graph.system[graph.receivers]]
    wanted = graph.positions[j] - graph.positions[i] + torch.einsum("ea,eax->ex", graph.cell_shifts, box)
    torch.testing.assert_close(graph.edge_vectors(), wanted, rtol=1e-14, atol=1e-14)
    assert torch.equal(graph.edge_vectors(), torch.cat([g.edge_vectors() for g in graphs]))
    given = {"positions": graph.positions, "cells": graph.cells}
    given[operand] = given[operand].clone().requires_grad_()

    def lengths(value):
        return graph.edge_vectors(**{**given, operand: value})[::97].norm(dim=1)

    assert torch.autograd.gradcheck(lengths, given[operand])
    assert torch.autograd.gradgradcheck(lengths, given[operand])


@pytest.mark.parametrize("change", ["reorder", "translate"])
def test_neighbors_do_not_depend_on_order_or_origin(systems, to_graph, change):
    atoms = systems["slab"]
    graph = to_graph(atoms)
    order = np.random.default_rng(0).permutation(len(atoms)) if change == "reorder" else np.arange(len(atoms))
    moved = atoms[order]
    if change == "translate":
        moved.positions += [17.3, -5.1, 2.2]
    back = order.tolist()
    rows = sorted((back[i], back[j], *s) for i, j, *s in pairs_of(to_graph(moved)))
    assert rows == pairs_of(graph)


BAD = {
    "no atoms": ({"positions": np.zeros((0, 3)), "numbers": []}, r"positions must be \[n, 3\] with n >= 1"),
    "flat": ({"positions": [0.0, 0.0, 0.0]}, r"positions must be \[n, 3\] with n >= 1, got \[3\]"),
    "numbers": ({"numbers": [1]}, r"numbers must be \[2\] as positions has, got \[1\]"),
    "nan": ({"positions": [[0, 0, 0], [math.nan, 0, 0]]}, r"the position of atom 1 is \[nan, 0.0, 0.0\], not finite"),
    "infinite": ({"positions": [[0, 0, -math.inf], [1, 0, 0]]}, "the position of atom 0 .* not finite"),
    "unknown element": ({"numbers": [1, 0]}, r"atomic numbers must be 1..118, got 0..1"),
    "beyond elements": ({"numbers": [1, 119]}, r"atomic numbers must be 1..118"),
    "fraction of an element": ({"numbers": [1.0, 6.5]}, "numbers must be whole, got 6.5"),
    "cutoff": ({"cutoff": 0.0}, r"cutoff must be positive and finite \(Å\), got 0.0"),
    "cutoff nan": ({"cutoff": math.nan}, "cutoff must be positive and finite"),
    "no cell": ({"pbc": True}, "degenerate"),
    "flat cell": ({"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "degenerate"),
    "cell shape": ({"cell": [[1, 0], [0, 1]]}, r"cell must be \[3, 3\] and finite"),
    "cell nan": ({"cell": np.full((3, 3), np.nan)}, r"cell must be \[3, 3\] and finite"),
    "pbc shape": ({"cell": np.eye(3) * 5, "pbc": [True, True]}, "pbc must be one bool or three"),
    "overlap": ({"positions": [[0, 0, 0], [0, 0, 0]]}, "atoms [01] and [01] overlap: they are 0 Å apart"),
    "overlap of images": (
        {"positions": [[0, 0, 0], [5, 0, 0]], "cell": np.eye(3) * 5},
        "overlap: they are 0 Å apart",
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_an_error_that_names_it(bad):
    given_, message = bad
    arguments = {"positions": [[0.0, 0, 0], [1.0, 0, 0]], "numbers": [1, 1], "cutoff": 3.0, **given_}
    with pytest.raises(ValueError, match=message):
        NeighborGraph.build(**arguments)
