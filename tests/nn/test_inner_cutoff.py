"""Closer than in the training frames nuclei repel, on every route; elsewhere a model is what it was, bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii

from sdas.run.checkpoint import load_model, save_model
from sdas_kernels import dispatch
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import (
    SDAS,
    FrozenPotential,
    InnerCutoff,
    InnerCutoffError,
    ListedPairs,
    grow,
    members,
    thinned,
)

F64 = torch.float64
SHORTEST = {(1, 1): 1.5, (1, 6): 0.97, (1, 8): 0.9, (6, 6): 1.3, (6, 8): 1.14, (8, 8): 2.1}


@pytest.fixture
def guarded(make_model):
    def make(shortest: dict[tuple[int, int], float] = SHORTEST, **config: object) -> SDAS:
        model = make_model(repulsion="inner-cutoff", **config)
        model.repulsion.cover(shortest)
        return model

    return make


@pytest.mark.parametrize(("a", "b"), [(1, 1), (6, 8), (8, 8)])
def test_a_close_pair_is_what_the_formula_says(guarded, a, b, pair, published):
    """The network gives what it gives at d − δ, and the nuclei add U less its value at d, and the slope there times δ.

    The published screening length has five digits.
    """
    model, d, depth = guarded(), SHORTEST[a, b] - 0.03, 0.03
    plain = copy.deepcopy(model)
    plain.repulsion = None

    def u(r: float) -> float:
        return (1 + 3 * r / d) * published(a, b, r)

    tangent = (u(d + 1e-5) - u(d - 1e-5)) / 2e-5
    for r in (0.1, 0.5 * d, d - 2 * depth):
        expected = float(plain(pair(a, b, d - depth))["energy"]) + u(r) - u(d) + depth * tangent
        assert float(model(pair(a, b, r))["energy"]) == pytest.approx(expected, abs=2e-4 * u(r))


def test_on_the_data_nothing_changes_to_the_last_bit(guarded, systems, to_graph):
    """For every route and dtype, with a distance of the frame itself as the shortest, also in float32."""
    atoms = systems["molecule"]
    distances, numbers = atoms.get_all_distances(), atoms.numbers
    shortest: dict[tuple[int, int], float] = {}
    for i, j in zip(*np.triu_indices(len(atoms), 1), strict=True):
        key = tuple(sorted((int(numbers[i]), int(numbers[j]))))
        shortest[key] = min(shortest.get(key, np.inf), distances[i, j])
    for dtype in (F64, torch.float32):
        model = guarded(shortest).to(dtype)
        plain = SDAS(**{name: value for name, value in model.config.items() if name != "repulsion"}).to(dtype).eval()
        weights = model.state_dict().items()
        plain.load_state_dict({n: w for n, w in weights if n != "_extra_state" and not n.startswith("repulsion.")})
        graph = to_graph(atoms).to(dtype=dtype)
        for backend in (None, "reference"):
            with dispatch.use_backend(backend) if backend else torch.no_grad():
                found, wanted = model(graph), plain(graph)
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        found, wanted = model.train()(graph), plain.train()(graph)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_every_pair_of_elements_repels_all_the_way(guarded, pair):
    """From where the network's pull has faded out, whatever its weights are."""
    model = guarded()
    with torch.no_grad():
        for readout in model.readouts:
            readout[2].weight.mul_(100)  # slopes of hundreds of eV/Å: a network that falls into holes
    for a, b in combinations_with_replacement((1, 6, 8), 2):
        graphs = [pair(a, b, x) for x in np.linspace(SHORTEST[a, b] - 0.09, 0.05, 60)]
        energy = model(NeighborGraph.batch(graphs))["energy"]
        assert bool((energy.diff() > 0).all()), (a, b)


def test_the_joint_is_smooth(guarded, pair):
    """Forces and their slopes by the distance come from both sides to the same."""
    model, d, step = guarded(), SHORTEST[6, 8] - 0.03, 2e-6

    def forces(center: float) -> torch.Tensor:
        graphs = [pair(6, 8, center + k * step) for k in (-1, 0, 1)]
        found = model(NeighborGraph.batch(graphs))["forces"].reshape(3, 2, 3)[:, 0]
        return found @ torch.tensor([0.0, 0.6, 0.8], dtype=F64)

    below, above = forces(d - 2 * step), forces(d + 2 * step)
    slope = float((above[2] - above[0]) / (2 * step))
    assert float(below[1]) == pytest.approx(float(above[1]), abs=1.1 * 4 * step * abs(slope))
    assert float((below[2] - below[0]) / (2 * step)) == pytest.approx(slope, rel=0.01)


@pytest.mark.parametrize(
    ("name", "layer"), [("molecule", "default"), ("small cell", "default"), ("small cell", "paper")]
)
def test_every_route_has_its_derivatives(guarded, systems, to_graph, layer, name, check_every_route):
    """Forces and stress of all routes, by differences of energies."""
    atoms: Atoms = systems[name]
    atoms.set_cell(0.7 * atoms.cell.array)
    atoms.positions *= 0.7
    model = guarded(layer=layer)
    graph, without = to_graph(atoms), copy.deepcopy(model)
    without.repulsion = None
    assert abs(float(without(graph)["energy"] - model(graph)["energy"])) > 0.1
    check_every_route(model, atoms, stress_rel=1e-5)


def test_a_curvature_is_the_derivative_of_a_force(guarded, pair):
    """Of a pair within the fading, where the second derivative of h and s counts; by positions and by a weight."""
    model, graph = guarded(), pair(6, 8, SHORTEST[6, 8] - 0.065)

    def force(positions: torch.Tensor) -> torch.Tensor:
        return model(replace(graph, positions=positions))["forces"][0, 2]

    positions = graph.positions.clone().requires_grad_()
    (found,) = torch.autograd.grad(force(positions), positions)
    for axis in (1, 2):
        push = torch.zeros_like(graph.positions)
        push[1, axis] = 1e-6
        by_difference = (force(graph.positions + push) - force(graph.positions - push)) / 2e-6
        assert float(found[1, axis]) == pytest.approx(float(by_difference), rel=1e-5)

    weight = model.train().readouts[0][2].weight
    model(graph)["forces"][0, 2].backward()
    gradient = float(weight.grad[0, 1])
    with torch.no_grad():
        weight[0, 1] += 1e-4
        more = float(model(graph)["forces"][0, 2])
        weight[0, 1] -= 2e-4
        less = float(model(graph)["forces"][0, 2])
    assert gradient == pytest.approx((more - less) / 2e-4, rel=1e-6)


def test_a_frozen_potential_leaves_close_atoms_to_the_model(guarded, pair):
    model, cells = guarded(), torch.zeros(1, 3, 3, dtype=F64)
    frozen = FrozenPotential.of(model)
    for share in (1.05, 0.9):
        graph = pair(6, 8, share * SHORTEST[6, 8], 4.5)
        arguments = ListedPairs(graph, 4.0, 0.5), graph.numbers, graph.positions, cells
        if share < 1:
            with pytest.raises(InnerCutoffError, match="call the model"):
                frozen(*arguments)
        else:
            wanted = model(pair(6, 8, share * SHORTEST[6, 8]))
            torch.testing.assert_close(frozen(*arguments)["forces"], wanted["forces"])


def test_files_growth_draws_and_other_dtypes_keep_it(guarded, tmp_path, pair):
    model, graph = guarded(members=2), pair(1, 1, 1.2)
    wanted = model(graph)["energy"]
    save_model(tmp_path / "model", model)
    read = load_model(tmp_path / "model")
    assert read.repulsion.lengths() == model.repulsion.lengths() != InnerCutoff([1, 6, 8]).lengths() == {}
    single = copy.deepcopy(model).float().double()
    for other in (read.to(F64), grow(model, channels=12), single, thinned(model, 0.0, 0)):
        torch.testing.assert_close(other(graph)["energy"], wanted, rtol=1e-7, atol=1e-6)
    assert [each.repulsion.lengths() for each in members(model)] == [model.repulsion.lengths()] * 2


def test_frames_make_it_shorter_and_never_longer():
    inner = InnerCutoff([1, 6, 8])
    assert int(inner.fm[0, 2]) == pytest.approx(0.9e5 * (covalent_radii[1] + covalent_radii[8]), abs=2)
    inner.cover({(8, 1): 1.8})  # a pair never met before: longer than its default
    inner.cover({(1, 8): 1.7, (6, 6): 1.4})
    inner.cover({(1, 8): 1.9})
    assert inner.lengths() == {(1, 8): pytest.approx(1.67, abs=1e-5), (6, 6): pytest.approx(1.37, abs=1e-5)}
    with pytest.raises(ValueError, match=r"has the pair \(1, 7\)"):
        inner.cover({(1, 7): 1.0})
    with pytest.raises(ValueError, match="distance"):
        inner.cover({(1, 6): 0.0})


def test_models_without_it_stay_apart(make_model, guarded):
    plain = make_model()
    with pytest.raises(RuntimeError, match="repulsion None there, inner-cutoff here"):
        guarded().load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match='must be "zbl", "inner-cutoff" or None'):
        make_model(repulsion="inner")
