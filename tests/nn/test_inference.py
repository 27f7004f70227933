"""Every model in `torch.inference_mode`, and on tensors that were made there: the numbers of the ordinary mode."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels.nn import CapturedPotential, CompiledPotential
from sdas_kernels.nn.geometry import EdgeGeometry

KINDS = {
    "default": {},
    "lmax 5": {"lmax": 5, "channels": 4, "layers": 1},
    "paper": {"layer": "paper"},
    "hook": {},
    "channel mixing": {"path_mixing": "channel"},
    "no attention": {"attention": False},
}


@pytest.fixture(params=KINDS)
def model(request, make_model):
    """A model of each kind, only the first of which one kernel runs whole."""
    made = make_model(**KINDS[request.param])
    if request.param == "hook":
        made.layers[0].attention.register_forward_hook(lambda module, given, result: 1.1 * result)
    return made


@pytest.fixture(params=["liquid", "no edges"])
def graph(request, systems, to_graph):
    return to_graph(systems[request.param])


def made_inside(graph):
    """The same graph, of floating tensors that were made in inference mode."""
    with torch.inference_mode():
        names = ("positions", "cells", "cell_shifts")
        return replace(graph, **{name: getattr(graph, name).clone() for name in names})


def ordinary(found):
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@pytest.mark.parametrize("training", [False, True])
def test_energies_forces_and_stress(model, graph, training):
    stress = graph.periodic
    wanted = ordinary(model(graph, stress=stress))
    inside = made_inside(graph)
    model.train(training)
    for given in (graph, inside):
        with torch.inference_mode():
            results = [model(given, stress=stress), model(given, forces=False, stress=stress)]
        for found in (*results, ordinary(model(given, stress=stress))):
            assert not any(tensor.requires_grad for tensor in found.values())
            torch.testing.assert_close(ordinary(found), {name: wanted[name] for name in found})
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.is_inference() for weight in model.parameters())


def test_a_graph_made_in_inference_mode_serves_training(model, graph):
    def gradients(given):
        weights = [w for w in model.train().parameters() if w.requires_grad]
        found = model(given)
        loss = found["energy"].square().sum() + found["forces"].square().sum()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    for found, wanted in zip(gradients(made_inside(graph)), gradients(graph), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", ["default", "paper"])
@pytest.mark.parametrize("training", [False, True])
def test_compiled_potentials(make_model, systems, to_graph, kind, training):
    model, graph = make_model(**KINDS[kind]).train(training), to_graph(systems["liquid"])
    wanted = ordinary(model(graph, stress=True))
    compiled = CompiledPotential(model, "eager")
    with torch.inference_mode():
        found = [compiled(given, stress=True) for given in (graph, made_inside(graph))]
    found.append(ordinary(compiled(made_inside(graph), stress=True)))
    for results in found:
        torch.testing.assert_close(ordinary(results), wanted)


@pytest.mark.parametrize("kind", ["default", "paper"])
def test_captured_potentials(make_model, systems, to_graph, kind):
    model, graph = make_model(**KINDS[kind]), to_graph(systems["molecule"])
    wanted = ordinary(model(graph))
    with torch.inference_mode():
        captured = CapturedPotential(model, graph.num_atoms + 3, graph.num_edges + 5)
        found = [captured(graph), captured(made_inside(graph)), captured.step(graph.positions.clone())]
    found += [captured(graph), captured(made_inside(graph))]
    for results in found:
        torch.testing.assert_close(ordinary(results), wanted)


def test_graphs_and_models_made_in_inference_mode(make_model, systems):
    atoms = systems["molecule"]
    with torch.inference_mode():
        model = copy.deepcopy(make_model())
        graph = sk.NeighborGraph.build(torch.tensor(atoms.positions), atoms.numbers, 4.0)
        inside = model(graph)
    torch.testing.assert_close(ordinary(make_model()(graph)), ordinary(inside))
    torch.testing.assert_close(ordinary(model(graph)), ordinary(inside))
    model.layers[0].register_forward_hook(lambda module, given, result: None)
    with pytest.raises(RuntimeError, match=r"SDAS: the weights were made in inference mode.*outside of"):
        model(graph)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="SDAS: the weights were made in inference mode"):
        model(graph)


def test_modules(make_model, systems, to_graph):
    graph = to_graph(systems["liquid"])
    model, e = make_model(), graph.num_edges
    product = sk.nn.FullyConnectedTensorProduct("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o").double()
    conv = sk.nn.TensorProductConv("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o").double()
    harmonics = sk.nn.SphericalHarmonics([0, 1], normalize=True)

    def results(graph):
        vectors = graph.edge_vectors()
        geometry = EdgeGeometry.from_vectors(vectors, graph, 2, 5, 4.0)
        x = torch.linspace(-1, 1, graph.num_atoms * 72, dtype=torch.float64).view(-1, 9, 8)
        y = harmonics(vectors)
        features = x.reshape(graph.num_atoms, -1)[:, :8].contiguous()
        w = torch.ones(e, conv.weight_numel, dtype=torch.float64)
        return [model.layers[1](x, geometry), y, product(features[graph.senders], y), conv(features, y, w, graph)]

    wanted = [t.detach() for t in results(graph)]
    with torch.inference_mode():
        for given in (graph, made_inside(graph)):
            torch.testing.assert_close([t.clone() for t in results(given)], wanted)
