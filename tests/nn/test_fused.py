"""Models that one kernel runs whole: the same numbers as layer by layer, and only where that is what the model does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import sdas_kernels as sk
from sdas_kernels import dispatch, memory, native
from sdas_kernels.flops import FlopCounter
from sdas_kernels.fused_sdas import cpp
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, CompiledPotential
from sdas_kernels.nn.fused import layer_weights

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
F64 = torch.float64
SWITCHES = {
    "default": {},
    "SE(3)": {"parity": False},
    "one layer": {"layers": 1},
    "product": {"node_product": True},
    "odd channels": {"channels": 7, "heads": 7, "lmax": 3, "layers": 3},
}


@pytest.fixture
def batch(systems, to_graph):
    return NeighborGraph.batch([to_graph(systems[name]) for name in ("slab", "small cell")])


@pytest.fixture
def runs(monkeypatch):
    """How often the fused kernels ran."""
    count = []
    for name in ("forward", "evaluate"):
        run = getattr(cpp, name)
        monkeypatch.setattr(cpp, name, lambda *arguments, run=run: count.append(run.__name__) or run(*arguments))
    return count


def results(model, batch, **options):
    """Everything the model gives, and the gradient of a loss by every weight and by the positions."""
    model.zero_grad()
    found = model(batch, **options)
    sum((out.square() * torch.linspace(0.5, 1, out.numel()).view(out.shape)).sum() for out in found.values()).backward()
    return found | {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("config", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("stress", [False, True])
def test_the_same_as_layer_by_layer(make_model, systems, to_graph, config, stress, runs):
    model = make_model(**config).train()
    model.set_energy_reference({z: 0.3 * z for z in model.species.tolist()}, 2.5)
    names = ("slab", "small cell") if stress else ("molecule", "small cell", "one atom")
    batch = NeighborGraph.batch([to_graph(systems[name]) for name in names])
    batch.positions.requires_grad_()
    found, by_positions = results(model, batch, stress=stress), batch.positions.grad.clone()
    assert runs == ["forward"]
    batch.positions.grad = None
    with dispatch.use_backend("reference", "network"):
        wanted = results(model, batch, stress=stress)
    assert runs == ["forward"]
    wanted["by positions"], found["by positions"] = batch.positions.grad, by_positions
    for name, right in wanted.items():
        torch.testing.assert_close(found[name], right, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_evaluation_in_one_call(make_model, batch, runs):
    """The same numbers as with PyTorch between the kernels, which a counter of its operators asks for."""
    model = make_model().eval()
    model.set_energy_reference({z: 0.3 * z for z in model.species.tolist()}, 2.5)
    found = model(batch, stress=True)
    assert runs == ["evaluate"]
    assert torch.equal(found["stress"], found["stress"].mT)
    with FlopCounter() as counter:
        watched = model(batch, stress=True)
    assert counter.by_op["sdas_kernels::network"] > 0
    assert runs == ["evaluate", "forward"]
    for name, right in watched.items():
        torch.testing.assert_close(found[name], right, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("threads", [1, 2])
def test_evaluation_in_memory_that_is_lent(make_model, systems, to_graph, threads):
    """Bits are the same whether scratch is kept from call to call or lent to the system in between."""
    model = make_model().eval()
    batch = NeighborGraph.batch([to_graph(systems[name]) for name in ("slab", "small cell") * 40])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wanted = model(batch, stress=True)
        memory.keep(0)
        for _ in range(3):
            found = model(batch, stress=True)
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    finally:
        torch.set_num_threads(before)
        memory.keep(1 << 29)


def lattice(shape, cell, pbc, random):
    """Atoms near the points of a lattice, in any order; where there is a cell, some lie outside of it."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    points = (points + random.uniform(-0.2, 0.2, points.shape)) / shape
    if pbc:
        points += random.integers(-2, 3, points.shape)
    points = random.permutation(points @ cell)
    numbers = random.choice([1, 6, 8], len(points))
    return NeighborGraph.build(points, numbers, 4.0, cell if pbc else None, pbc, dtype=F64)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_atoms_in_any_order(make_model, threads):
    """Systems that the kernel sorts in space: the same as unsorted, whatever their cells and however many there are."""
    random = np.random.default_rng(3)
    skewed = np.array([[40.0, 0, 0], [9, 38, 0], [-7, 5, -42]])
    graphs = [lattice((14, 13, 15), skewed, pbc, random) for pbc in (True, False)]
    model, before = make_model().eval(), torch.get_num_threads()
    model.set_energy_reference({z: 0.3 * z for z in model.species.tolist()}, 2.5)
    torch.set_num_threads(threads)
    try:
        for batch, stress in ((NeighborGraph.batch(graphs), False), (NeighborGraph.batch(graphs[:1] * 2), True)):
            assert batch.num_atoms > 4096 > batch.num_atoms // 2
            found, again = model(batch, stress=stress), model(batch, stress=stress)
            with FlopCounter():
                unsorted = model(batch, stress=stress)
            for name, right in unsorted.items():
                torch.testing.assert_close(found[name], right, rtol=1e-11, atol=1e-11)
                assert torch.equal(found[name], again[name])
            torch.set_num_threads(1)
            alone = model(batch, stress=stress)
            assert all(torch.equal(alone[name], found[name]) for name in found)
            torch.set_num_threads(threads)
    finally:
        torch.set_num_threads(before)


def test_evaluation_keeps_no_graph(make_model, batch):
    model = make_model().eval()
    found = model(batch, stress=True)
    assert not any(out.requires_grad for out in found.values())
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        again = model(batch, stress=True)
    assert all(torch.equal(found[name], again[name]) for name in found)


def hook(model):
    model.layers[0].norm.register_forward_hook(lambda module, inputs, output: 2 * output)


def swap(model):
    model.layers[1].update.mlp[1] = nn.Tanh()


def override(model):
    norm = model.layers[1].norm
    norm.forward = lambda x: 0 * x


def parametrized(model):
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(model.readouts[0][0], "weight", Doubled())


def other_epsilon(model):
    model.layers[0].norm.epsilon = 0.5


def derive(model):
    class Raised(SDAS):
        def energies(self, *inputs):
            return super().energies(*inputs) + 1

    model.__class__ = Raised


def patch(model):
    features = model.features
    model.features = lambda *inputs: (2 * features(*inputs)[0], None)


@pytest.mark.parametrize("change", [hook, swap, override, parametrized, other_epsilon, derive, patch])
def test_what_was_changed_runs_as_it_is(make_model, batch, runs, change):
    model = make_model().eval()
    before = model(batch)["energy"]
    assert len(runs) == 1
    change(model)
    assert layer_weights(model) is None
    after = model(batch)["energy"]
    assert len(runs) == 1
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(
    "config",
    [
        {"layer": "paper"},
        {"direction_query": False},
        {"radial_query": False},
        {"sink": False},
        {"radial_gain": False},
        {"attention": False},
        {"node_update": False},
        {"path_mixing": "channel"},
    ],
)
def test_other_layers_run_layer_by_layer(make_model, config):
    assert layer_weights(make_model(**config)) is None


def test_where_it_runs(make_model):
    model = make_model()
    assert layer_weights(model) is not None
    for op in ("network", "neighbor_attention", "edge_geometry"):
        with sk.use_backend("reference", op):
            assert layer_weights(model) is None
    with sk.use_backend("reference"):
        assert layer_weights(model) is None
    assert layer_weights(model.bfloat16()) is None
    assert layer_weights(SDAS([1], channels=2, heads=1, lmax=5)) is None


def test_weights_are_looked_up_at_every_call(make_model, batch, runs):
    model = make_model().eval()
    before = model(batch)["energy"]
    model.load_state_dict({name: 1.1 * t if t.is_floating_point() else t for name, t in model.state_dict().items()})
    with dispatch.use_backend("reference", "network"):
        wanted = model(batch)["energy"]
    assert not torch.allclose(before, wanted)
    torch.testing.assert_close(model(batch)["energy"], wanted)
    model.readouts[0] = copy.deepcopy(model.readouts[1])
    with dispatch.use_backend("reference", "network"):
        wanted = model(batch)["energy"]
    torch.testing.assert_close(model(batch)["energy"], wanted)


@pytest.mark.parametrize("name", [name for name, _ in SDAS([1, 6, 8, 14]).named_parameters()])
def test_one_number_of_a_weight_changes_unseen(make_model, batch, name):
    """Neither a version counter nor an address tells of it."""
    model = make_model().eval()
    compiled = CompiledPotential(model)
    before = model(batch)["energy"]
    weight = model.get_parameter(name).data.view(-1)
    weight[-1] += 0.5
    with dispatch.use_backend("reference", "network"):
        wanted = model(batch)
    for found in (model(batch), compiled(batch)):
        torch.testing.assert_close(found["energy"], wanted["energy"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found["forces"], wanted["forces"], rtol=1e-9, atol=1e-9)
    weight[-1] -= 0.5
    torch.testing.assert_close(model(batch)["energy"], before)


def test_models_of_one_shape_take_turns(make_model, batch):
    """More of them than packed weights are kept of."""
    config, models = make_model().config, []
    for seed in range(10):
        torch.manual_seed(seed)
        models.append(SDAS(**config).to(batch.dtype).eval())
    first = [model(batch)["energy"] for model in models]
    assert len({float(e.sum()) for e in first}) == len(models)
    for _ in range(2):
        for model, energy in zip(models, first, strict=True):
            assert torch.equal(model(batch)["energy"], energy)
    assert torch.equal(copy.deepcopy(models[3])(batch)["energy"], first[3])


def test_weights_that_lie_elsewhere(make_model, batch):
    model = make_model().eval()
    compiled, before = CompiledPotential(model), model(batch)["forces"]
    gate = model.layers[0].update.gated.weight
    gate.data = gate.data.mT.contiguous().mT  # the same numbers in another order
    assert torch.equal(compiled(batch)["forces"], before)
    gate.data += 0.1
    with dispatch.use_backend("reference", "network"):
        wanted = model(batch)["forces"]
    assert not torch.allclose(wanted, before)
    torch.testing.assert_close(compiled(batch)["forces"], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stress", [False, True])
def test_compiled_training_holds_it_as_one_operator(make_model, batch, runs, backend, stress):
    """And use_backend still decides when it runs."""
    model = make_model().train()
    compiled = CompiledPotential(model, backend)

    def learn(potential):
        model.zero_grad()
        found = potential(batch, stress=stress)
        sum(out.square().sum() for out in found.values()).backward()
        return [*(out.detach() for out in found.values()), *(p.grad.clone() for p in model.parameters())]

    wanted = learn(model)
    runs.clear()
    found = learn(compiled)
    assert runs == ["forward"]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    with dispatch.use_backend("reference"):
        torch.testing.assert_close(learn(compiled), wanted, rtol=1e-9, atol=1e-9)
    assert runs == ["forward"]


def test_compiled_evaluation_compiles_nothing(make_model, batch, runs):
    model = make_model().eval()
    compiled = CompiledPotential(model, backend="no such backend, which is never looked for")
    for stress in (False, True):
        wanted, found = model(batch, stress=stress), compiled(batch, stress=stress)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert set(compiled(batch, forces=False, stress=True)) == {"energy", "stress"}
    assert runs == ["evaluate"] * 5
    model.load_state_dict({name: 1.1 * t if t.is_floating_point() else t for name, t in model.state_dict().items()})
    assert torch.equal(compiled(batch)["energy"], model(batch)["energy"])
    model.float()
    narrow = batch.to(dtype=torch.float32)
    assert torch.equal(compiled(narrow)["forces"], model(narrow)["forces"])


def test_a_default_device_elsewhere_does_not_matter(make_model, batch):
    """A kernel on the CPU has its memory there; a graph of lists is made there too."""
    model = make_model().eval()
    wanted = model(batch)
    memory.release()
    with torch.device("meta"):
        found = model(batch)
        graph = NeighborGraph.build([[0.0, 0, 0], [0, 0, 1]], [1, 8], 4.0, dtype=torch.float64, charge=1)
    assert torch.equal(found["energy"], wanted["energy"])
    assert torch.equal(found["forces"], wanted["forces"])
    assert {t.device.type for t in (graph.positions, graph.system, graph.charge, *graph.edges.tensors())} == {"cpu"}


def test_unknown_species_are_named(make_model, systems, to_graph):
    model = make_model(species=[1])
    graph = to_graph(systems["molecule"])
    for potential in (model, CompiledPotential(model)):
        with pytest.raises(ValueError, match=r"atomic numbers \[.*\] are unknown"):
            potential(graph)


def test_frozen_weights_get_no_gradient(make_model, batch):
    model = make_model().train()
    model.embedding.weight.requires_grad_(False)
    results_of = model(batch)
    (results_of["energy"].sum() + results_of["forces"].square().sum()).backward()
    assert model.embedding.weight.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
