"""Energy, forces, stress and gradients by weights are the same bits in every run, on every device."""

from __future__ import annotations

import re

import pytest
import torch
from functorch.compile import aot_module_simplified, make_boxed_func
from torch.utils._python_dispatch import TorchDispatchMode

from sdas_kernels import segment
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import CapturedPotential, CompiledPotential

# Names of operators that add atomically on a GPU, and of those which Inductor makes such ones.
ATOMIC = re.compile("index_(add|put|reduce)|scatter_(add|reduce)|^put|bincount|histc|cumsum|embedding.*backward")
SMALL = {"channels": 4, "lmax": 1, "layers": 1, "n_radial": 3}
LAYERS = {
    "default": {},
    "paper": {"layer": "paper"},
    "bare": {"attention": False, "radial_gain": False, "path_mixing": "channel", "sink": False},
}


def atomic(operators):
    """Those of PyTorch's operators that are."""
    names = {operator._schema.name for operator in operators}
    return {name for name in names if name.startswith("aten::") and ATOMIC.search(name.removeprefix("aten::"))}


class Operators(TorchDispatchMode):
    """Notes every operator that runs below autograd."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def batch(systems, to_graph):
    return NeighborGraph.batch([to_graph(systems[name]) for name in ("liquid", "small cell", "slab")])


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The CPU computes as devices do whose index_add is atomic."""
    monkeypatch.setattr(segment, "IN_ORDER", set())


def learn(potential, model, graph, stress=True):
    """Results, and gradients of a loss of all of them by every weight."""
    model.zero_grad()
    found = potential(graph, stress=stress)
    sum(out.square().sum().double() for out in found.values()).backward()
    by_weights = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: out.detach().clone() for name, out in found.items()} | by_weights


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS)
def test_pytorch_finds_nothing_nondeterministic_on_the_cpu(make_model, batch, config):
    """In this mode PyTorch raises where an operator is not deterministic, and fills new memory with NaN."""
    model = make_model(**config)
    captured = CapturedPotential(model, batch.num_atoms, batch.num_edges, systems=3)
    torch.use_deterministic_algorithms(True)
    try:
        assert_same_bits(captured(batch), captured(batch))
        assert_same_bits(model(batch, stress=True), model(batch, stress=True))
        model.train()
        assert_same_bits(learn(model, model, batch), learn(model, model, batch))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS)
def test_no_operator_adds_atomically_on_a_gpu(make_model, batch, config):
    model = make_model(**config)
    with Operators() as run:
        model(batch, stress=True)
        learn(model.train(), model, batch)
    assert torch.ops.sdas_kernels.segment_sum.default in run.seen
    assert not atomic(run.seen)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_operator_of_a_compiled_step_adds_atomically_on_a_gpu(make_model, batch):
    model, seen = make_model(**SMALL).train(), set()

    def note(graph, inputs):
        seen.update(node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload))
        return make_boxed_func(graph.forward)

    compiled = CompiledPotential(
        model, lambda graph, inputs: aot_module_simplified(graph, inputs, fw_compiler=note, bw_compiler=note)
    )
    learn(compiled, model, batch)
    assert torch.ops.sdas_kernels.segment_sum.default in seen
    assert not atomic(seen)


@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS)
def test_sums_of_segments_give_the_numbers_of_sums_in_order(make_model, batch, config, request):
    """To float64 rounding, in the model itself, compiled, and captured."""
    model = make_model(**SMALL | config)
    wanted = model(batch, stress=True), learn(model.train(), model, batch)
    request.getfixturevalue("as_on_a_gpu")
    found = [(model.eval()(batch, stress=True), wanted[0]), (learn(model.train(), model, batch), wanted[1])]
    found += [(learn(CompiledPotential(model, "aot_eager"), model, batch), wanted[1])]
    captured = CapturedPotential(model.eval(), batch.num_atoms, batch.num_edges, systems=3)
    found += [(captured(batch), {name: wanted[0][name] for name in ("energy", "forces")})]
    for given, exact in found:
        assert given.keys() == exact.keys()
        for name in exact:
            scale = max(1.0, exact[name].abs().max().item())
            torch.testing.assert_close(given[name], exact[name], rtol=0, atol=1e-11 * scale, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: that its results repeat is not tested")
@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS)
def test_a_gpu_repeats_every_bit(make_model, batch, config):
    model = make_model(torch.float32, channels=32, heads=8, layers=2, **config).to("cuda")
    graph = NeighborGraph.batch([batch] * 20).to("cuda", torch.float32)
    compiled = CompiledPotential(model, "aot_eager")
    captured = CapturedPotential(model, graph.num_atoms, graph.num_edges, systems=graph.num_systems)
    evaluated, replayed = model(graph, stress=True), captured(graph)
    model.train()
    learned = [learn(potential, model, graph) for potential in (model, compiled)]
    for _ in range(10):
        model.eval()
        assert_same_bits(model(graph, stress=True), evaluated)
        assert_same_bits(captured(graph), replayed)
        model.train()
        for potential, first in zip((model, compiled), learned, strict=True):
            assert_same_bits(learn(potential, model, graph), first)
