"""The convolution with the last layer of its radial network inside: that of the weights which the layer would give."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels.flops import FlopCounter
from sdas_kernels.irreps import Irreps
from sdas_kernels.nn import uvu_paths
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product import reference as product
from sdas_kernels.ops.tensor_product_conv import blocks, tensor_product_conv

F64 = torch.float64
OP = "tensor_product_conv"
HIDDEN = 4


def spec_of(in1, in2, out, paths):
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), [(*path, 0.6) for path in paths])


SMALL = ("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o")
USUAL = spec_of(*SMALL, uvu_paths(*SMALL))
MIXED = spec_of(*SMALL, [(0, 0, 0, "uvw", True), (1, 1, 0, "uvu", True)])


@pytest.fixture(autouse=True, params=[0, 1 << 18], ids=["a node at a time", "whole"])
def _block_size(request, monkeypatch):
    monkeypatch.setattr(blocks, "_NUMBERS", request.param)


@pytest.fixture
def make(graph_ops):
    def operands(edges, spec=USUAL, device="cpu", dtype=F64, seed=0):
        n, e = edges.num_nodes, edges.num_edges
        shapes = {"x": (n, spec.dims[0]), "y": (e, spec.dims[1])}
        shapes |= {"hidden": (e, HIDDEN), "basis": (HIDDEN, spec.weight_numel)}
        return graph_ops.normal(seed, device, dtype, **shapes)

    return operands


def op(edges, spec=USUAL):
    return lambda x, y, hidden, basis: tensor_product_conv(x, y, hidden, edges, spec, basis)


def formula(edges, spec=USUAL):
    def value(x, y, hidden, basis):
        messages = product.forward(x[edges.senders], y, hidden @ basis, spec.text)
        return x.new_zeros(len(x), spec.dims[2]).index_add(0, edges.receivers, messages)

    return value


@pytest.mark.parametrize("spec", [USUAL, MIXED], ids=["uvu", "mixed"])
def test_any_graph(place, make, graph_ops, edges, spec):
    edges = graph_ops.on(edges, place)
    o = make(edges, spec, place)
    found, wanted = graph_ops.ladder(op(edges, spec), o), graph_ops.ladder(formula(edges, spec), o)
    graph_ops.assert_ladders_agree(found, wanted, 1e-12)


@pytest.mark.parametrize("name", ["x", "y", "hidden", "basis"])
def test_gradients_are_finite_differences(place, make, graph_ops, name):
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1], [1, 2, 2, 0], 3), place)
    graph_ops.check_gradients(op(edges), make(edges, device=place), name)


@pytest.mark.parametrize("spec", [USUAL, MIXED], ids=["uvu", "mixed"])
def test_only_what_is_asked_for_is_computed(place, make, graph_ops, spec):
    """Whatever the masks and the steps given, the rest is as if all were asked for."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = tuple(make(edges, spec, place).values())
    steps = tuple(make(edges, spec, place, seed=1).values())
    grad = torch.randn(edges.num_nodes, spec.dims[2], dtype=F64).to(place)
    end, ops = (edges.tensors(), spec.text), torch.ops.sdas_kernels
    once, twice = ops.tensor_product_conv_basis_backward, ops.tensor_product_conv_basis_double_backward
    every = once(grad, *o, *end, [True] * 4)
    for bits in range(16):
        asked = [bool(bits >> n & 1) for n in range(4)]
        given = [step if wanted else None for step, wanted in zip(steps, asked, strict=True)]
        zeros = [torch.zeros_like(step) if t is None else t for t, step in zip(given, steps, strict=True)]
        whole = twice(*zeros, grad, *o, *end, [True] * 5)
        found = [*once(grad, *o, *end, asked), *twice(*given, grad, *o, *end, [bits % 3 == 0, *asked])]
        for a, b, wanted in zip(found, [*every, *whole], [*asked, bits % 3 == 0, *asked], strict=True):
            if wanted:
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
            else:
                assert not a.numel()


@pytest.mark.parametrize("kind", ["usual", "no edges"])
def test_opcheck(place, make, graph_ops, kind):
    edges = graph_ops.on(graph_ops.edge_list(kind), place)
    o = tuple(t.requires_grad_() for t in make(edges, device=place).values())
    steps = [t.detach() for t in make(edges, device=place, seed=1).values()]
    ops, end = torch.ops.sdas_kernels, (edges.tensors(), USUAL.text)
    torch.library.opcheck(ops.tensor_product_conv_basis.default, (*o, *end))
    grad = torch.randn(edges.num_nodes, USUAL.dims[2], dtype=F64, device=place, requires_grad=True)
    torch.library.opcheck(ops.tensor_product_conv_basis_backward.default, (grad, *o, *end, [True] * 4))
    plain = tuple(t.detach() for t in (grad, *o))
    twice = ops.tensor_product_conv_basis_double_backward.default
    torch.library.opcheck(twice, (*steps, *plain, *end, [True] * 5))
    steps[2] = None
    torch.library.opcheck(twice, (*steps, *plain, *end, [True, False, True, True, False]))


def test_repeats_bitwise_and_compiles(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("crowd"), place)
    o = make(edges, device=place, dtype=torch.float32)
    first, again = (graph_ops.ladder(op(edges), o) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch._dynamo.reset()
    compiled = torch.compile(op(edges), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**o), op(edges)(**o))


def test_flops_are_those_of_the_convolution_and_the_matrix_products(place, make, graph_ops):
    """The counter sees inside the reference; the formula of the kernels stands for them."""
    edges = graph_ops.on(graph_ops.edge_list("crowd"), place)
    o = make(edges, device=place)
    weight = o["hidden"] @ o["basis"]
    with FlopCounter() as inside:
        op(edges)(**o)
    with FlopCounter() as outside:
        tensor_product_conv(o["x"], o["y"], weight, edges, USUAL)
    assert inside.total == outside.total + 2 * o["hidden"].numel() * USUAL.weight_numel
    assert not inside.estimated
    o = {name: t.requires_grad_() for name, t in o.items()}
    counts = []
    for call in (op(edges), formula(edges)):
        with FlopCounter() as counter:
            first = torch.autograd.grad(call(**o).sum(), list(o.values()), create_graph=True)
            torch.autograd.grad(sum(g.sum() for g in first), list(o.values()))
        assert not counter.unknown
        counts.append(counter.total)
    assert 0.5 < counts[0] / counts[1] < 1.6


WRONG = {
    "weight": ({"hidden": lambda t: t[1:]}, r"weight must be \[E, H\] with E = 17"),
    "basis": ({"basis": lambda t: t[1:]}, r"weight_basis must be \[H, numel\] with H = 4"),
    "weights": ({"basis": lambda t: t[:, 1:]}, r"weight_basis must be \[H, numel\] with numel = 8"),
    "no weight": ({"hidden": lambda t: None}, r"weight must be \[E, H\] where there is a weight_basis, got None"),
    "shared": ({"hidden": lambda t: t[0]}, r"weight must be \[E, H\], got \[4\]"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(make, graph_ops, wrong):
    changes, message = wrong
    edges = graph_ops.edge_list("usual")
    o = make(edges)
    ((name, change),) = changes.items()
    with pytest.raises(ValueError, match=f"tensor_product_conv: {message}"):
        op(edges)(**{**o, name: change(o[name])})
