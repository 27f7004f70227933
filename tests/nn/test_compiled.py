"""A compiled potential gives the model's numbers, and its gradients by the weights, by one graph for every size."""

from __future__ import annotations

import pytest
import sympy
import torch

from sdas_kernels import dispatch
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, CapturedPotential, CompiledPotential

FREE = (["molecule"], ["molecule", "no edges"], ["one atom", "molecule", "molecule"], ["one atom", "no edges"])
PERIODIC = (["liquid"], ["small cell", "liquid"], ["slab", "crystal", "slab"], ["crystal"])
BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
LAYERS = {
    "default": {},
    "paper": {"layer": "paper"},
    "SE(3), two layers": {"parity": False, "layers": 2},
    "bare": {"attention": False, "radial_gain": False, "node_update": False, "path_mixing": "channel", "sink": False},
}


SMALL = {"channels": 4, "lmax": 1, "layers": 1, "n_radial": 3}


@pytest.fixture(autouse=True)
def layer_by_layer():
    """Else one kernel would run the whole model, and leave nothing to compile."""
    with dispatch.use_backend("reference", "network"):
        yield


class Recording:
    """A backend that runs the graph as it is, and keeps what it was asked to compile."""

    def __init__(self) -> None:
        self.seen = []

    def __call__(self, graph, example_inputs):
        self.seen.append(example_inputs)
        return graph


@pytest.fixture
def batch_of(systems, to_graph):
    """`batch_of(names, dtype)`: a batch of those systems."""
    systems["crystal"] = pytest.importorskip("ase").Atoms("O", cell=[2.5, 2.6, 2.7], pbc=True)  # one atom, many edges
    return lambda names, dtype=torch.float64: NeighborGraph.batch([to_graph(systems[n], dtype=dtype) for n in names])


def learn(model, potential, graph, **wanted):
    """What the potential gives, and the gradient of a loss of all of it by every weight."""
    model.zero_grad()
    found = potential(graph, **wanted)
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (out - torch.randn(out.shape, generator=generator, dtype=out.dtype)).square().sum() for out in found.values()
    )
    loss.backward()
    by_weights = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {**{name: out.detach() for name, out in found.items()}, **by_weights}


def assert_same(found, wanted, tolerance=1e-10):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].shape == wanted[name].shape
        assert found[name].dtype == wanted[name].dtype
        bound = tolerance * max(1.0, wanted[name].abs().max().item())
        assert (found[name] - wanted[name]).abs().max() <= bound, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_gives_the_gradients_of_the_model_for_every_size(make_model, batch_of, backend):
    model = make_model(**SMALL | {"layers": 2}).train()
    compiled = CompiledPotential(model, backend)
    for names in PERIODIC:
        graph = batch_of(names)
        wanted = learn(model, model, graph, stress=True)
        assert "layers.0.attention.radial_gain" in wanted
        assert_same(learn(model, compiled, graph, stress=True), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_gives_the_numbers_of_the_model_without_a_graph(make_model, batch_of, backend):
    model = make_model(**SMALL | {"layers": 2})
    compiled = CompiledPotential(model, backend)
    for names in FREE:
        graph = batch_of(names)
        found = compiled(graph)
        assert_same(found, model(graph))
        assert not any(out.requires_grad for out in found.values())


@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("again", [False, True], ids=["evaluation", "training"])
def test_every_layer_with_and_without_stress(make_model, batch_of, config, again):
    model = make_model(**SMALL | config).train(again)
    compiled = CompiledPotential(model, "eager")
    for names, stress in ((FREE[1], False), (FREE[2], False), *((names, True) for names in PERIODIC)):
        graph = batch_of(names)
        if again:
            assert_same(learn(model, compiled, graph, stress=stress), learn(model, model, graph, stress=stress))
        else:
            assert_same(compiled(graph, stress=stress), model(graph, stress=stress))
    only = compiled(graph, forces=False, stress=True)
    assert_same({"energy": only["energy"].detach()}, {"energy": model(graph)["energy"].detach()})
    assert set(only) == {"energy", "stress"}
    assert set(compiled(graph, forces=False)) == {"energy"}


def test_one_compilation_serves_every_size(make_model, batch_of):
    model, backend = make_model(**SMALL), Recording()
    compiled = CompiledPotential(model, backend)
    for names in FREE:
        compiled(batch_of(names))
    assert len(backend.seen) == 1
    for names in PERIODIC:
        compiled(batch_of(names))
    assert len(backend.seen) == 2
    compiled(batch_of(PERIODIC[0]), stress=True)
    assert len(backend.seen) == 3


def test_the_traced_graph_rests_on_no_assumption_about_sizes(make_model, batch_of):
    """What the tracer may have found out are equalities between sizes, such as row_ptr having N + 1 rows, and that a
    size is not 0 or 1, which other tests show to change nothing."""
    backend = Recording()
    for stress in (False, True):
        for model in (make_model(**SMALL), make_model(**SMALL, layer="paper")):
            CompiledPotential(model.train(), backend)(batch_of(["liquid"]), stress=stress)
    for inputs in backend.seen:
        environment = inputs[0].fake_mode.shape_env
        assert environment.guards
        for guard in environment.guards:
            assert isinstance(guard.expr, sympy.Eq) or (isinstance(guard.expr, sympy.Ne) and guard.expr.rhs in (0, 1))
        assert not any(value.is_number for value in environment.replacements.values())


def test_weights_are_shared_and_the_state_dict_is_unchanged(make_model, batch_of):
    model, graph = make_model(**SMALL).train(), batch_of(["molecule", "molecule"])
    keys = list(model.state_dict())
    compiled = CompiledPotential(model, "eager")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = compiled(graph)["energy"].detach()
    learn(model, compiled, graph)
    optimizer.step()
    model.set_energy_reference({1: 1.0, 6: 2.0, 8: 3.0}, 5.0)
    assert (compiled(graph)["energy"] - before).abs().min() > 1
    assert_same(learn(model, compiled, graph), learn(model, model, graph))
    assert list(model.state_dict()) == keys

    model.embedding.requires_grad_(False)
    found = learn(model, compiled, graph)
    assert "embedding.weight" not in found
    assert_same(found, learn(model, model, graph))


def test_the_model_may_be_moved_to_another_dtype(make_model, batch_of):
    """Bound for float32: 1e-5 of the largest of each result."""
    model = make_model(**SMALL).train()
    compiled = CompiledPotential(model, "aot_eager")
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model.to(dtype)
        graph = batch_of(["molecule", "one atom"], dtype)
        assert_same(learn(model, compiled, graph), learn(model, model, graph), tolerance)


def test_the_backend_of_the_operators_is_chosen_when_they_run(make_model, batch_of, monkeypatch):
    model, graph = make_model(**SMALL).train(), batch_of(["molecule"])
    compiled = CompiledPotential(model, "aot_eager")
    wanted = learn(model, compiled, graph)
    chosen = []
    choose = dispatch._choose
    monkeypatch.setattr(dispatch, "_choose", lambda *given: (chosen.append(given), choose(*given))[1])
    with dispatch.use_backend("reference"):
        assert_same(learn(model, compiled, graph), wanted)
    assert {op for op, *_ in chosen} >= {"neighbor_attention", "edge_geometry"}
    assert {forced for *_, forced in chosen} == {"reference"}


def test_second_derivatives_by_positions(make_model, batch_of):
    """Rows of a Hessian, each from a call of its own."""
    model, rows = make_model(**SMALL), []
    graph = batch_of(["molecule"])
    graph.positions.requires_grad_()
    for potential in (model, CompiledPotential(model, "aot_eager")):
        rows.append([torch.autograd.grad(potential(graph)["forces"][0, k], graph.positions)[0] for k in range(3)])
    assert_same(dict(enumerate(rows[1])), dict(enumerate(rows[0])))


def test_strided_positions_are_welcome(make_model, batch_of):
    model, graph = make_model(**SMALL), batch_of(["molecule"])
    wanted = model(graph)
    object.__setattr__(graph, "positions", graph.positions.T.contiguous().T)
    assert_same(CompiledPotential(model, "aot_eager")(graph), wanted)


@pytest.mark.parametrize("make", [CompiledPotential, lambda model: CapturedPotential(model, 10, 100)])
def test_a_forward_that_they_would_not_run_is_refused(make_model, make):
    derived, patched = make_model(**SMALL), make_model(**SMALL)
    derived.__class__ = type("Raised", (SDAS,), {"forward": lambda self, graph: SDAS.forward(self, graph)})
    patched.forward = patched.forward
    for model, name in ((derived, "Raised"), (patched, "SDAS")):
        with pytest.raises(TypeError, match=f"Potential: model must have the forward of SDAS, got {name} with another"):
            make(model)
    with pytest.raises(TypeError, match="Potential: model must be an SDAS, got Linear"):
        make(torch.nn.Linear(1, 1))


def test_errors_are_those_of_the_model(make_model, batch_of, to_graph, systems):
    compiled = CompiledPotential(make_model(**SMALL), "eager")
    with pytest.raises(TypeError, match="SDAS: wants a NeighborGraph, got str"):
        compiled("a graph")
    with pytest.raises(ValueError, match="system 0 has no cell, so no stress"):
        compiled(batch_of(["molecule"]), stress=True)
    with pytest.raises(ValueError, match=r"built with cutoff 5\.0 Å, the model has 4\.0 Å"):
        compiled(to_graph(systems["molecule"], 5.0))
    with pytest.raises(torch._dynamo.exc.InvalidBackend, match="nonesuch"):
        CompiledPotential(make_model(**SMALL), "nonesuch")(batch_of(["molecule"]))


def test_a_missing_compiler_is_named(make_model, batch_of):
    import torch._inductor.config

    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(RuntimeError, match=r"'inductor' cannot compile the model: .*\n.*needs a C\+\+ compiler"),
    ):
        CompiledPotential(make_model(**SMALL))(batch_of(["molecule"]))
