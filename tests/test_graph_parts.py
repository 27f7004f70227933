"""The parts of neighbor graphs, of any dtype, strides and distance from the origin: taken right, or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sdas_kernels import native
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import CompiledPotential


def three_systems(systems, to_graph, dtype=torch.float64):
    names = ("liquid", "molecule", "slab")
    return NeighborGraph.batch([to_graph(systems[name], dtype=dtype) for name in names])


PARTS = ("positions", "numbers", "cell_shifts", "cells", "pbc", "system")


def every_second(tensor):
    return torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_any_strides_is_taken(systems, to_graph, make_model, name):
    graph = three_systems(systems, to_graph)
    given = dataclasses.replace(graph, **{name: every_second(getattr(graph, name))})
    assert getattr(given, name).is_contiguous()
    for one, other in zip(*(make_model()(g).values() for g in (given, graph)), strict=True):
        assert torch.equal(one, other)


CONVERTED = {
    "cells": lambda t: t.double(),
    "cell_shifts": lambda t: t.long(),
    "numbers": lambda t: t.byte(),
    "system": lambda t: t.int(),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_part_of_another_dtype_is_converted(systems, to_graph, make_model, name):
    graph = three_systems(systems, to_graph, torch.float32)
    given = dataclasses.replace(graph, **{name: CONVERTED[name](getattr(graph, name))})
    assert getattr(given, name).dtype == getattr(graph, name).dtype
    model = make_model(torch.float32)
    for one, other in zip(*(model(g).values() for g in (given, graph)), strict=True):
        assert torch.equal(one, other)


BAD_PARTS = {
    "batched positions": ("positions", lambda t: t[None], r"positions must be \[\d+, 3\] for \d+ atoms"),
    "whole positions": ("positions", lambda t: t.long(), "positions must have a floating dtype, got torch.int64"),
    "complex positions": ("positions", lambda t: t.cfloat(), "positions must have a floating dtype"),
    "sparse positions": ("positions", lambda t: t.to_sparse(), "positions must be a dense tensor"),
    "an atom too few": ("positions", lambda t: t[1:], "positions must be"),
    "numbers of other atoms": ("numbers", lambda t: t[1:], "numbers must be"),
    "no element": ("numbers", lambda t: t - t.min(), "atomic numbers must be 1..118, got 0.."),
    "beyond elements": ("numbers", lambda t: t + 111, "atomic numbers must be 1..118"),
    "fractions of elements": ("numbers", lambda t: t.double(), "numbers must be integers, got torch.float64"),
    "a system too many": ("system", lambda t: t + 1, "system must be 0..2 for 3 cells, got 3"),
    "a system too few": ("system", lambda t: t - 1, "system must be 0..2 for 3 cells, got -1"),
    "systems mixed": ("system", lambda t: t.flip(0), "system must be sorted in ascending order"),
    "shifts": ("cell_shifts", lambda t: t[:, :2], r"cell_shifts must be \[\d+, 3\]"),
    "complex shifts": ("cell_shifts", lambda t: t.cfloat(), "cell_shifts must be real"),
    "cells": ("cells", lambda t: t[0], r"cells must be \[3, 3, 3\]"),
    "pbc": ("pbc", lambda t: t.int(), "pbc must be bools, got torch.int32"),
    "pbc of others": ("pbc", lambda t: t[1:], "pbc must be"),
    "device": ("cells", lambda t: t.to("meta"), "cells is on meta but edges is on cpu"),
    "not periodic": ("pbc", lambda t: t & False, "periodic is True but pbc is"),
    "edges": ("edges", lambda e: e.tensors(), "edges must be an EdgeIndex, got list"),
    "cutoff": ("cutoff", lambda c: -c, "cutoff must be positive and finite"),
    "periodic": ("periodic", lambda p: None, "periodic must be a bool, got None"),
}


@pytest.mark.parametrize("bad", BAD_PARTS.values(), ids=BAD_PARTS)
def test_parts_that_do_not_fit_are_refused(systems, to_graph, bad):
    name, change, message = bad
    graph = three_systems(systems, to_graph)
    with pytest.raises((TypeError, ValueError), match=f"NeighborGraph: {message}"):
        dataclasses.replace(graph, **{name: change(getattr(graph, name))})


@pytest.mark.parametrize("name", ["system", "numbers"])
@pytest.mark.parametrize("number", [10**9, -1])
def test_a_number_written_later_is_refused_when_it_is_used(systems, to_graph, make_model, name, number):
    for use in (make_model(), CompiledPotential(make_model()), NeighborGraph.to, lambda g: NeighborGraph.batch([g])):
        graph = three_systems(systems, to_graph)
        getattr(graph, name)[-1] = number
        with pytest.raises(ValueError, match="NeighborGraph: "):
            use(graph)


def test_a_part_resized_later_is_refused_when_it_is_used(systems, to_graph, make_model):
    for name in ("positions", "cells", "cell_shifts", "system", "numbers"):
        graph = three_systems(systems, to_graph)
        getattr(graph, name).resize_(1, *getattr(graph, name).shape[1:])
        with pytest.raises(ValueError, match=r"NeighborGraph: \w+ must be \[\d+"):
            make_model()(graph)


@pytest.mark.parametrize(("name", "shape"), [("positions", (2, 36, 3)), ("positions", (3,)), ("cells", (3, 3))])
def test_edge_vectors_of_other_shapes_are_refused(systems, to_graph, name, shape):
    graph = three_systems(systems, to_graph)
    with pytest.raises(ValueError, match=f"NeighborGraph.edge_vectors: {name} must be"):
        graph.edge_vectors(**{name: torch.zeros(shape, dtype=torch.float64)})
    with pytest.raises(TypeError, match=f"{name} must have a floating dtype, got torch.int64"):
        graph.edge_vectors(**{name: torch.zeros(shape, dtype=torch.int64)})


FAR = [0.0, 120.0, 12_000.0]


@pytest.mark.parametrize("distance", FAR)
@pytest.mark.parametrize("name", ["molecule", "liquid", "small cell", "slab"])
def test_a_narrow_dtype_keeps_the_digits_of_atoms_far_from_the_origin(systems, to_graph, name, distance):
    """Edge vectors, to the rounding of numbers of their own size."""
    atoms = systems[name]
    atoms.positions += [distance, -distance / 3, distance / 7]
    exact = to_graph(atoms)
    for graph in (to_graph(atoms, dtype=torch.float32), exact.to(dtype=torch.float32)):
        torch.testing.assert_close(graph.edge_vectors().double(), exact.edge_vectors(), rtol=0, atol=2e-6)


def test_a_narrow_dtype_keeps_the_digits_of_atoms_that_wandered_through_many_cells(systems, to_graph):
    atoms = systems["liquid"]
    wandered = atoms.copy()
    wandered.positions += np.random.default_rng(0).integers(-2000, 2000, (len(atoms), 3)) @ atoms.cell.array
    exact, graph = to_graph(atoms), to_graph(wandered, dtype=torch.float32)
    lengths = [g.edge_vectors().double().norm(dim=1).sort().values for g in (graph, exact)]
    torch.testing.assert_close(*lengths, rtol=0, atol=2e-6)
    assert graph.positions.abs().max() < 2 * atoms.cell.array.max()


def test_systems_of_a_batch_come_near_the_origin_one_by_one(systems, to_graph):
    graphs = []
    for k, name in enumerate(("molecule", "liquid", "slab", "one atom")):
        systems[name].positions += 1e4 * (k - 1)
        graphs.append(to_graph(systems[name]))
    batch = NeighborGraph.batch(graphs)
    torch.testing.assert_close(
        batch.to(dtype=torch.float32).edge_vectors().double(), batch.edge_vectors(), rtol=0, atol=2e-6
    )


def test_float64_positions_are_those_given(atoms, to_graph):
    atoms.positions += 1e4
    graph = to_graph(atoms)
    np.testing.assert_array_equal(graph.positions.numpy(), atoms.positions)
    assert torch.equal(graph.to("cpu", torch.float64).positions, graph.positions)


def test_positions_that_come_near_the_origin_stay_differentiable(systems, to_graph):
    graph = to_graph(systems["liquid"])
    positions = (graph.positions + 1e4).requires_grad_()
    moved = dataclasses.replace(graph, positions=positions)
    moved.to(dtype=torch.float32).edge_vectors().norm(dim=1).sum().backward()
    given = graph.positions.clone().requires_grad_()
    graph.edge_vectors(given).norm(dim=1).sum().backward()
    torch.testing.assert_close(positions.grad, given.grad, rtol=0, atol=1e-4)


def test_words_for_devices_and_dtypes_are_checked(systems, to_graph):
    atoms = systems["molecule"]
    for use in (to_graph(atoms).to, lambda **how: NeighborGraph.build(atoms.positions, atoms.numbers, 3.0, **how)):
        with pytest.raises(ValueError, match="NeighborGraph: device must be one that PyTorch has here, got 'gpu'"):
            use(device="gpu")
        with pytest.raises(TypeError, match="NeighborGraph: dtype must be a floating dtype"):
            use(dtype=torch.int64)


@pytest.mark.skipif(not native.available()[0], reason="no compiled extension")
@pytest.mark.parametrize("name", ["system", "numbers"])
def test_a_number_written_past_pytorch_ends_in_no_kernel(systems, to_graph, make_model, name):
    """By an array that shares the memory, which PyTorch does not notice."""
    graph = three_systems(systems, to_graph)
    getattr(graph, name).numpy()[-1] = 10**9
    with pytest.raises(ValueError, match=f"NeighborGraph: {name} must be .* but something else was written there"):
        make_model()(graph)
    with pytest.raises((ValueError, IndexError)):
        make_model().train()(graph)
