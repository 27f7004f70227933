"""Autocast does not touch potentials and operators: they compute in the dtype of their operands, as without it."""

from __future__ import annotations

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels.nn import CapturedPotential, CompiledPotential, EdgeGeometry

BFLOAT16 = torch.bfloat16
CELL = [[7.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 7.0]]
MODELS = {
    "default": {"lmax": 2},
    "lmax 5": {"lmax": 5, "layers": 1},
    "paper": {"lmax": 2, "layer": "paper"},
    "no attention": {"lmax": 1, "attention": False},
    "channel mixing": {"lmax": 1, "path_mixing": "channel", "radial_gain": False},
}


def autocast():
    return torch.autocast("cpu", dtype=BFLOAT16)


@pytest.fixture(params=MODELS, ids=str)
def model(request):
    torch.manual_seed(1)
    return sk.nn.SDAS([1, 8], channels=4, heads=2, cutoff=4.0, **MODELS[request.param])


@pytest.fixture
def batch():
    places = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [0, 1.5, 0], [0, 0, 1.5], [1.5, 1.5, 0]])
    positions = places + 0.4 * torch.rand(5, 3, generator=torch.Generator().manual_seed(2))
    return sk.NeighborGraph.batch([sk.NeighborGraph.build(positions, [8, 1, 1, 8, 1], 4.0, CELL)] * 2)


def assert_identical(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert torch.equal(first[name], second[name]), name


def gradients(model, out):
    loss = out["energy"].square().sum() + out["forces"].square().sum() + out["stress"].square().sum()
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_a_potential_gives_the_same_numbers(model, batch, backend):
    """Energy, forces, stress, and the gradient of a loss on them; its backward pass is outside, as PyTorch wants it."""
    with sk.use_backend(backend, "neighbor_attention", "edge_softmax", "neighbor_tensor_product"):
        evaluated, trained = model.eval()(batch, stress=True), model.train()(batch, stress=True)
        wanted, energy_alone = gradients(model, trained), model(batch, forces=False)
        with autocast():
            assert_identical(model(batch, forces=False), energy_alone)
            assert_identical(model.eval()(batch, stress=True), evaluated)
            found = model.train()(batch, stress=True)
            assert_identical(found, trained)
        assert_identical(gradients(model, found), wanted)


def test_so_does_a_captured_potential(model, batch):
    captured = CapturedPotential(model.eval(), 16, 2000, systems=2)
    wanted = captured(batch)
    with autocast():
        assert_identical(captured(batch), wanted)


@pytest.mark.parametrize("layer", ["default", "paper"])
def test_so_does_a_compiled_potential(batch, layer):
    """Made, traced and called inside: one of the model that a kernel runs whole, and one that is traced."""
    model = sk.nn.SDAS([1, 8], channels=4, heads=2, lmax=1, layers=1, cutoff=4.0, layer=layer).eval()
    wanted = model(batch)
    with autocast():
        found = CompiledPotential(model, backend="eager")(batch)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def operator_calls():
    """(operator, its tensors, the rest) of every public operator."""
    torch.manual_seed(0)
    edges = sk.EdgeIndex.from_pairs(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 2, 0, 0, 1]), 3)
    n, e, k, d, c, m, r = 3, 5, 2, 3, 4, 4, 5
    geometry = [torch.randn(e, m), torch.randn(e, r)]
    logits = [torch.randn(n, k, d + m + r), torch.randn(n, k, d), torch.randn(n, k)]
    value, gain = torch.randn(n, m, c), torch.randn(k, 2, r)
    product = sk.nn.TensorProductConv("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o")
    wide = [torch.randn(n, 8), torch.randn(e, 4), torch.randn(e, product.weight_numel)]
    hidden, basis = torch.randn(e, 3), torch.randn(3, product.weight_numel)
    spec = product.spec
    return {
        "spherical_harmonics": (sk.spherical_harmonics, [torch.randn(e, 3)], [3]),
        "radial_basis": (sk.radial_basis, [torch.rand(e)], [4, 1.5]),
        "polynomial_envelope": (sk.polynomial_envelope, [torch.rand(e)], [1.5]),
        "edge_geometry": (lambda *given: torch.cat(sk.edge_geometry(*given)[:2], 1), [torch.randn(e, 3)], [2, 4, 1.5]),
        "edge_softmax": (sk.edge_softmax, [*logits, *geometry, torch.rand(e)], [edges]),
        "neighbor_attention": (
            lambda *given: sk.neighbor_attention(*given[:8], edges, 1, True, *given[8:]),
            [*logits, value, gain, *geometry, torch.rand(e), torch.randn(4, c)],
            [],
        ),
        "neighbor_tensor_product": (
            sk.neighbor_tensor_product,
            [torch.randn(e, k), torch.randn(e, r), gain, value, torch.randn(e, m)],
            [edges, 1],
        ),
        "tensor_product": (sk.tensor_product, [torch.randn(e, 8), *wide[1:]], [spec]),
        "tensor_product_conv": (sk.tensor_product_conv, wide, [edges, spec]),
        "tensor_product_conv_basis": (
            lambda x, y, hidden, basis: sk.tensor_product_conv(x, y, hidden, edges, spec, basis),
            [*wide[:2], hidden, basis],
            [],
        ),
    }


def value_and_gradients(run, tensors, rest):
    """The result and its derivatives by every operand, differentiable."""
    operands = [tensor.detach().requires_grad_() for tensor in tensors]
    z = run(*operands, *rest)
    return [z, *torch.autograd.grad(z.sin().sum(), operands, create_graph=True)], operands


def with_second(run, tensors, rest):
    """The result, its derivatives, and their derivatives."""
    first, operands = value_and_gradients(run, tensors, rest)
    return [*first, *torch.autograd.grad(sum(g.sin().sum() for g in first[1:]), operands)]


@pytest.mark.parametrize("backend", ["default", "reference"])
@pytest.mark.parametrize("name", operator_calls())
def test_an_operator_and_its_derivatives_are_the_same(name, backend):
    run, tensors, rest = operator_calls()[name]
    forced = sk.use_backend("reference") if backend == "reference" else sk.profiling.ranges()
    with forced:
        wanted = with_second(run, tensors, rest)
        with autocast():
            found = with_second(run, tensors, rest)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)


OPERANDS = [(name, i) for name, call in operator_calls().items() if len(call[1]) > 1 for i in range(len(call[1]))]


@pytest.mark.parametrize(("name", "operand"), OPERANDS)
def test_the_widest_dtype_of_the_operands_is_taken(name, operand):
    """One operand is in bfloat16, as a linear layer leaves it."""
    run, tensors, rest = operator_calls()[name]
    narrow = [tensor.to(BFLOAT16) if i == operand else tensor for i, tensor in enumerate(tensors)]
    rounded = [tensor.float() for tensor in narrow]
    wanted, _ = value_and_gradients(run, rounded, rest)
    with autocast():
        found, _ = value_and_gradients(run, narrow, rest)
    wanted[operand + 1] = wanted[operand + 1].to(BFLOAT16)  # a gradient by the narrow operand is as narrow
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_float64_stays_float64_and_without_autocast_dtypes_must_agree():
    run, tensors, rest = operator_calls()["tensor_product"]
    with pytest.raises(TypeError, match=r"y is torch\.bfloat16 but x is torch\.float32"):
        run(tensors[0], tensors[1].to(BFLOAT16), tensors[2], *rest)
    with autocast():
        assert run(tensors[0].double(), tensors[1].to(BFLOAT16), tensors[2], *rest).dtype == torch.float64


def module_calls():
    """Every module of `sk.nn` that a model of one's own may be made of, with what it is called with."""
    torch.manual_seed(0)
    graph = sk.NeighborGraph.build(torch.rand(5, 3) * 3, [1] * 5, 4.0)
    geometry = EdgeGeometry.from_vectors(graph.edge_vectors(), graph, 2, 4, 4.0)
    x, y, nn = torch.randn(5, 9, 4), torch.randn(5, 4), sk.nn
    same = {"channels": 4, "heads": 2, "lmax": 2, "n_radial": 4}
    conv = nn.TensorProductConv("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o")
    edge = torch.randn(graph.num_edges, 4), torch.randn(graph.num_edges, conv.weight_numel)
    return {
        "EquivariantLinear": (nn.EquivariantLinear(2, 4, 4, bias=True), [x]),
        "EquivariantRMSNorm": (nn.EquivariantRMSNorm(2), [x]),
        "NodeUpdate": (nn.NodeUpdate(4, 2), [x]),
        "NeighborAttention": (nn.NeighborAttention(**same), [x, geometry]),
        "NeighborAttention, channel": (nn.NeighborAttention(**same, path_mixing="channel", sink=False), [x, geometry]),
        "NeighborAttention, plain": (nn.NeighborAttention(**same, attention=False, radial_gain=False), [x, geometry]),
        "SDASLayer": (nn.SDASLayer(**same), [x, geometry]),
        "PaperEmbedding": (nn.PaperEmbedding(4, 2, 4), [geometry]),
        "PaperLayer": (nn.PaperLayer(4, 2, 2), [x[:, 0], x, geometry]),
        "SphericalHarmonics": (nn.SphericalHarmonics(range(4), True), [torch.randn(5, 3)]),
        "TensorProduct": (
            nn.TensorProduct("2x1o", "1x1o", "2x1e", [(0, 0, 0, "uvu", True)]),
            [torch.randn(5, 6), torch.randn(5, 3)],
        ),
        "FullyConnectedTensorProduct": (
            nn.FullyConnectedTensorProduct("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o"),
            [torch.randn(5, 8), y],
        ),
        "FullTensorProduct": (nn.FullTensorProduct("2x1o", "1x0e+1x1o"), [torch.randn(5, 6), y]),
        "ElementwiseTensorProduct": (nn.ElementwiseTensorProduct("1x0e+1x1o", "1x0e+1x1o"), [y, y]),
        "TensorProductConv": (conv, [torch.randn(5, 8), *edge, graph]),
    }


@pytest.mark.parametrize("backend", ["default", "reference"])
@pytest.mark.parametrize("name", module_calls())
def test_a_module_runs_with_what_linear_layers_round(name, backend):
    """Inside a user's own model: matrix products round as autocast asks, and nothing fails, backward either."""
    module, given = module_calls()[name]
    forced = sk.use_backend("reference") if backend == "reference" else sk.profiling.ranges()

    def run():
        out = module(*given)
        out = torch.cat([part.flatten() for part in out]) if isinstance(out, tuple) else out
        if out.requires_grad:
            module.zero_grad()
            out.square().sum().backward()
        return out.detach(), [weight.grad for weight in module.parameters() if weight.grad is not None]

    with forced:
        wanted, by_weights = run()
        with autocast():
            found, by_weights_found = run()
    scale = wanted.abs().max()
    assert (found.float() - wanted).abs().max() < 0.05 * scale
    for a, b in zip(by_weights_found, by_weights, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 0.1 * b.abs().max() + 1e-6


def test_a_bfloat16_model_and_graph(model, batch):
    """Plain PyTorch runs it, with the two digits that its numbers have; gradients of high degrees lose one of them."""
    positions = batch.positions[:5]
    narrow = sk.NeighborGraph.build(positions.to(BFLOAT16), [8, 1, 1, 8, 1], 4.0, torch.tensor(CELL, dtype=BFLOAT16))
    assert narrow.dtype == BFLOAT16
    assert torch.equal(narrow.positions, positions.to(BFLOAT16))
    wide = narrow.to(dtype=torch.float32)
    model.eval()
    wanted = model(wide, stress=True)
    found = model.bfloat16()(narrow, stress=True)
    assert found["forces"].dtype == BFLOAT16
    for name in ("energy", "forces", "stress"):
        assert (found[name] - wanted[name]).norm() < 0.5 * wanted[name].norm(), name
