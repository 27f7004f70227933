"""A potential that is looked at once gives what the model gives for a graph that is made anew."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from sdas_kernels import dispatch, native, profiling
from sdas_kernels.flops import FlopCounter
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.nn import SDAS, FrozenPotential, ListedPairs, OverlapError

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
F64 = torch.float64
SKIN = 0.5
NAMES = ("molecule", "liquid", "small cell", "one atom")


def graph_of(systems, to_graph, names, cutoff, moved=0.0):
    """Float64, of structures whose atoms have moved."""
    random, graphs = np.random.default_rng(1), []
    for name in names:
        atoms = systems[name].copy()
        atoms.positions += moved * random.uniform(-1, 1, atoms.positions.shape)
        graphs.append(to_graph(atoms, cutoff=cutoff, dtype=F64))
    return NeighborGraph.batch(graphs)


@pytest.fixture
def pairs_of(systems, to_graph):
    """The pairs of structures and, of the same ones later, the graph."""

    def make(model, names=NAMES, moved=0.0):
        listed = graph_of(systems, to_graph, names, model.cutoff + SKIN)
        return ListedPairs(listed, model.cutoff, SKIN), graph_of(systems, to_graph, names, model.cutoff, moved)

    return make


def step(potential, pairs, graph, **options):
    return potential(pairs, graph.numbers, graph.positions, graph.cells, **options)


@pytest.mark.parametrize("config", [{}, {"node_product": True, "parity": False}, {"members": 3}], ids=str)
def test_the_same_bits_as_the_model_in_float64(make_model, pairs_of, config):
    model = make_model(dtype=F64, **config).eval()
    model.set_energy_reference({z: 0.3 * z for z in model.species.tolist()}, 2.5)
    potential = FrozenPotential.of(model)
    for moved in (0.0, 0.1):
        for name in NAMES:
            pairs, graph = pairs_of(model, [name], moved)
            found, wanted = step(potential, pairs, graph), model(graph)
            assert torch.equal(found["energy"], wanted["energy"]), name
            assert torch.equal(found["forces"], wanted["forces"]), name


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_no_bit_of_a_system_depends_on_others_or_on_threads(make_model, pairs_of, threads):
    model, before = make_model(dtype=torch.float32).eval(), torch.get_num_threads()
    potential = FrozenPotential.of(model)
    pairs, graph = pairs_of(model)
    alone = [step(potential, *pairs_of(model, [name])) for name in NAMES]
    torch.set_num_threads(threads)
    try:
        found = step(potential, pairs, graph)
    finally:
        torch.set_num_threads(before)
    for name in ("energy", "forces", "closest"):
        assert torch.equal(found[name], torch.cat([each[name] for each in alone])), name


def test_many_atoms_in_any_order(make_model):
    """A system that the kernel sorts in space, by rounded positions of its own."""
    random, model = np.random.default_rng(3), make_model(channels=4, heads=2, layers=1, cutoff=3.5).eval()
    points = np.stack(np.meshgrid(*map(np.arange, (17, 16, 16)), indexing="ij"), -1).reshape(-1, 3)
    points = random.permutation(2.8 * (points + random.uniform(-0.2, 0.2, points.shape)))
    numbers, cell = random.choice([1, 6, 8], len(points)), 2.8 * np.diag([17, 16, 16])
    graph = NeighborGraph.build(points, numbers, 3.5, cell, dtype=F64)
    assert graph.num_atoms > 4096
    found, wanted = step(FrozenPotential.of(model), ListedPairs(graph, 3.5, 0.0), graph, trust=True), model(graph)
    assert torch.equal(found["energy"], wanted["energy"])
    assert torch.equal(found["forces"], wanted["forces"])


def test_stress_and_closest_distance(make_model, pairs_of, systems):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model, ("liquid", "small cell"), moved=0.1)
    found, wanted = step(FrozenPotential.of(model), pairs, graph, stress=True), model(graph, stress=True)
    torch.testing.assert_close(found["stress"], wanted["stress"], rtol=1e-14, atol=1e-16)
    squares = graph.edge_vectors().square().sum(1)
    for row, closest in enumerate(found["closest"].tolist()):
        assert closest == pytest.approx(squares[graph.system[graph.receivers] == row].min().sqrt().item(), rel=1e-14)


def test_float32_is_as_near_to_float64_as_the_model_is(make_model, pairs_of):
    exact, model = make_model(dtype=F64).eval(), make_model(dtype=torch.float32).eval()
    pairs, graph = pairs_of(model, moved=0.1)
    wanted, other = exact(graph), model(graph.to(dtype=torch.float32))
    found = step(FrozenPotential.of(model), pairs, graph)
    assert found["forces"].dtype == F64
    error, usual = ((each["forces"].double() - wanted["forces"]).square().mean() for each in (found, other))
    assert 0 < error < 1.5 * usual


@pytest.mark.parametrize("change", ["positions", "cells", "numbers", "nan"])
def test_pairs_that_may_lack_one_are_not_used_unless_trusted(make_model, pairs_of, change):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model)
    parts = {name: getattr(graph, name).clone() for name in ("numbers", "positions", "cells")}
    potential = FrozenPotential.of(model)
    assert potential(pairs, **parts) is not None
    parts["positions"][1, 2] += 0.99 * SKIN / 2
    assert potential(pairs, **parts) is not None
    if change == "positions":
        parts["positions"][1, 2] += 0.02 * SKIN / 2
    elif change == "nan":
        parts["positions"][3, 0] = torch.nan
    elif change == "numbers":
        parts["numbers"] = parts["numbers"].flip(0)
    else:
        parts["cells"][1] *= 2
    assert potential(pairs, **parts) is None
    assert potential(pairs, **parts, trust=True) is not None


def test_other_elements_count_where_pairs_are_trusted(make_model, pairs_of):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model, ("molecule",))
    numbers = graph.numbers.flip(0)
    assert not torch.equal(numbers, graph.numbers)
    found = FrozenPotential.of(model)(pairs, numbers, graph.positions, graph.cells, trust=True)
    wanted = model(dataclasses.replace(graph, numbers=numbers))
    assert torch.equal(found["energy"], wanted["energy"])
    assert torch.equal(found["forces"], wanted["forces"])


def test_atoms_at_one_place_are_named(make_model, pairs_of):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model)
    positions = graph.positions.clone()
    positions[-2] = positions[-3] + 1e-6  # the two atoms of the small cell, the third system
    with pytest.raises(OverlapError, match="two atoms overlap") as caught:
        FrozenPotential.of(model)(pairs, graph.numbers, positions, graph.cells, trust=True)
    assert caught.value.row == 2
    assert caught.value.distance == pytest.approx(3**0.5 * 1e-6)


def test_an_unknown_element_and_a_stress_without_a_cell_are_refused(make_model, pairs_of):
    model = make_model(dtype=F64, species=[1, 8]).eval()
    pairs, graph = pairs_of(model, ("molecule",))
    with pytest.raises(ValueError, match=r"atomic numbers \[1, 6, 8\] are unknown"):
        step(FrozenPotential.of(model), pairs, graph)
    model = make_model(dtype=F64).eval()
    with pytest.raises(ValueError, match="has no cell, so no stress"):
        step(FrozenPotential.of(model), *pairs_of(model, ("molecule",)), stress=True)


def test_what_is_done_to_the_model_later_does_not_count(make_model, pairs_of):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model)
    potential = FrozenPotential.of(model)
    before = step(potential, pairs, graph)["forces"]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    assert torch.equal(step(potential, pairs, graph)["forces"], before)
    assert not torch.equal(step(FrozenPotential.of(model), pairs, graph)["forces"], before)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))], ids=["copy", "pickle"]
)
def test_copies_give_the_same(make_model, pairs_of, again):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model)
    potential = FrozenPotential.of(model)
    wanted = step(potential, pairs, graph)["forces"]
    other = again(potential)
    del potential, model
    assert torch.equal(step(other, again(pairs), graph)["forces"], wanted)


def test_models_that_no_kernel_runs_whole_have_none(make_model):
    hooked, inside, patched, derived = (make_model().eval() for _ in range(4))
    hooked.register_forward_hook(lambda *_: None)
    inside.layers[0].register_forward_hook(lambda *_: None)
    patched.forward = patched.forward
    derived.__class__ = type("Derived", (SDAS,), {})
    others = {
        "hooked": hooked,
        "hooked inside": inside,
        "patched": patched,
        "of a subclass, which may add to the energy": derived,
        "in training": make_model().train(),
        "paper": make_model(layer="paper").eval(),
        "repulsion": make_model(repulsion="zbl").eval(),
        "states": make_model(charge_spin=True).eval(),
        "bfloat16": make_model().eval().to(torch.bfloat16),
        "another module": nn.Linear(1, 1).eval(),
    }
    assert [name for name, model in others.items() if FrozenPotential.of(model) is not None] == []


def test_it_does_not_serve_where_others_are_asked_for_or_watch(make_model):
    potential = FrozenPotential.of(make_model().eval())
    assert potential.serves()
    for scope in (dispatch.use_backend("reference"), FlopCounter(), profiling.ranges()):
        with scope:
            assert not potential.serves()
    assert potential.serves()


def test_arrays_that_are_not_those_of_the_pairs_are_refused(make_model, pairs_of):
    model = make_model(dtype=F64).eval()
    (pairs, graph), potential = pairs_of(model, ("liquid",)), FrozenPotential.of(model)
    right = {name: getattr(graph, name) for name in ("numbers", "positions", "cells")}
    wrong = {
        "numbers": (right["numbers"].int(), right["numbers"][:-1]),
        "positions": (right["positions"].float(), right["positions"][1:], right["positions"].T.contiguous().T),
        "cells": (right["cells"].float(), right["cells"].expand(2, 3, 3), right["cells"][0]),
    }
    for name, givens in wrong.items():
        for given in givens:
            with pytest.raises((TypeError, ValueError), match=f"FrozenPotential: {name} must be"):
                potential(pairs, **right | {name: given})
    with pytest.raises(TypeError, match="FrozenPotential: positions must be a"):
        potential(pairs, **right | {"positions": right["positions"].numpy()})
    with FakeTensorMode() as mode, pytest.raises(TypeError, match=r"positions must be .* without numbers"):
        potential(pairs, **right | {"positions": mode.from_tensor(right["positions"])})
    with pytest.raises(TypeError, match="pairs must be ListedPairs, got NoneType"):
        potential(None, **right)
    with pytest.raises(RuntimeError, match="FrozenPotential: has no derivatives"):
        torch.func.grad(lambda r: potential(pairs, **right | {"positions": r})["energy"].sum())(right["positions"])


def test_negation_that_waits_is_done(make_model, pairs_of):
    model = make_model(dtype=F64).eval()
    pairs, graph = pairs_of(model, ("liquid",))
    wanted = step(FrozenPotential.of(model), pairs, graph)["forces"]
    positions, cells = (torch._neg_view(-given) for given in (graph.positions, graph.cells))
    found = FrozenPotential.of(model)(pairs, graph.numbers, positions, cells, trust=True)
    assert torch.equal(found["forces"], wanted)


def test_pairs_are_for_the_model(make_model, pairs_of):
    potential = FrozenPotential.of(make_model(dtype=F64).eval())
    pairs, graph = pairs_of(make_model(cutoff=3.0), ("molecule",))
    with pytest.raises(ValueError, match="pairs are for a cutoff of 3 Å, the model has 4 Å"):
        step(potential, pairs, graph)
    charged = NeighborGraph.build(graph.positions, graph.numbers, 4.5, charge=1)
    with pytest.raises(ValueError, match="pairs are of a graph with charge 1"):
        step(potential, ListedPairs(charged, 4.0, 0.5), charged)


def test_a_graph_of_nothing(make_model):
    none = torch.zeros(0, dtype=torch.int64)
    graph = NeighborGraph(
        positions=torch.zeros(0, 3, dtype=F64),
        numbers=none,
        edges=EdgeIndex.from_pairs(none, none, 0),
        cell_shifts=torch.zeros(0, 3, dtype=F64),
        cells=torch.zeros(0, 3, 3, dtype=F64),
        pbc=torch.zeros(0, 3, dtype=torch.bool),
        system=none,
        cutoff=4.5,
        periodic=False,
    )
    found = step(FrozenPotential.of(make_model(dtype=F64).eval()), ListedPairs(graph, 4.0, 0.5), graph)
    assert {name: list(value.shape) for name, value in found.items()} == {
        "energy": [0],
        "forces": [0, 3],
        "closest": [0],
    }


def test_threads_share_one(make_model, pairs_of):
    """Systems of other sizes in turn: each call has room for its own."""
    model = make_model(dtype=F64, channels=4, layers=1).eval()
    potential, given = FrozenPotential.of(model), [pairs_of(model, [name]) for name in NAMES]
    wanted, interval = [step(potential, *each)["forces"] for each in given], sys.getswitchinterval()

    def run(first):
        turns = [(first + turn) % len(NAMES) for turn in range(100)]
        return all(torch.equal(step(potential, *given[turn])["forces"], wanted[turn]) for turn in turns)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(run, range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_an_overlap_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(OverlapError(3, 2e-5)))
    assert (error.row, error.distance, str(error)) == (3, 2e-5, "two atoms overlap: they are 2e-05 Å apart")


@pytest.mark.parametrize(
    ("cutoff", "skin", "reason"),
    [
        (4.0, 0.6, r"graph must have all pairs up to cutoff \+ skin = 4.6 Å, got one with those up to 4.5 Å"),
        (-1.0, 0.5, "cutoff must be positive"),
        (4.0, -0.5, "skin must be 0 or more"),
        (4.0, None, "skin must be a number"),
    ],
)
def test_pairs_are_all_those_within_cutoff_and_skin(systems, to_graph, cutoff, skin, reason):
    graph = to_graph(systems["molecule"], cutoff=4.5, dtype=F64)
    with pytest.raises((TypeError, ValueError), match=f"ListedPairs: {reason}"):
        ListedPairs(graph, cutoff, skin)


def test_pairs_are_of_a_graph_in_float64(systems, to_graph):
    graph = to_graph(systems["molecule"], cutoff=4.5, dtype=torch.float32)
    with pytest.raises(TypeError, match=r"must be torch.float64 on cpu, got torch.float32"):
        ListedPairs(graph, 4.0, SKIN)
