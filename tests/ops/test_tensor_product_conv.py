"""The convolution against e3nn's tensor product and an index_add, exact derivatives, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.dispatch import backend_name
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.irreps import Irreps
from sdas_kernels.nn import uvu_paths, uvu_paths_apart
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product import reference as product
from sdas_kernels.ops.tensor_product_conv import tensor_product_conv

F64 = torch.float64
OP = "tensor_product_conv"
OPERANDS = ("x", "y", "weight")


def features(lmax, channels):
    return "+".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(lmax + 1))


def spec_of(in1, in2, out, paths):
    factors = [(*path[:5], 0.4 + 0.1 * (n % 7)) for n, path in enumerate(paths)]
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), factors)


def added(in1, in2, out):
    """Paths into one entry are added up."""
    return spec_of(in1, in2, out, uvu_paths(in1, in2, out))


def apart(in1, in2, wanted):
    """Each path has an entry of its own."""
    return spec_of(in1, in2, *uvu_paths_apart(in1, in2, wanted))


def odd_one():
    """No weight, several v, uuu of one channel, two paths into an entry, entries that no path reaches or leaves."""
    return spec_of(
        "3x1o+2x0e+1x2e+2x3o",
        "2x1o+1x0e+1x2e",
        "3x0e+3x2e+4x1o+2x1o+1x2e+3x1e",
        [
            (0, 0, 0, "uvu", True),
            (0, 0, 1, "uvu", True),
            (0, 0, 5, "uvu", False),
            (0, 0, 1, "uvu", False),
            (1, 0, 3, "uvu", True),
            (2, 2, 4, "uuu", True),
            (2, 1, 4, "uvu", True),
        ],
    )


def every_mode():
    """Modes that mix channels, which no kernel fuses."""
    return spec_of(
        "2x0e+2x1o",
        "2x1o+1x0e",
        "2x1o+3x0e+4x2e+2x1e",
        [
            (0, 0, 0, "uvu", True),
            (1, 0, 1, "uvw", True),
            (1, 0, 2, "uvuv", True),
            (1, 0, 3, "uuu", False),
            (1, 1, 0, "uvu", True),
        ],
    )


SPECS = {
    "usual": lambda: apart(features(2, 5), features(2, 1), features(2, 5)),
    "added": lambda: added(features(2, 3), features(3, 1), features(3, 3)),
    "odd paths": lambda: apart("3x0e+3x1o+3x1e", "1x0e+1x1o+1x2e", "0e+0o+1e+1o+2e+2o"),
    "scalars": lambda: apart("7x0e", "1x0e", "0e"),
    "scalar source": lambda: apart("16x0e", features(3, 1), features(3, 1)),
    "to scalars": lambda: apart(features(3, 4), features(3, 1), "0e"),
    "unequal multiplicities": lambda: apart("33x0e+17x1o+2x2e", features(2, 1), features(2, 1)),
    "degree 4": lambda: apart(features(4, 2), features(4, 1), features(4, 1)),
    "degree 6": lambda: apart("2x6e+1x5o", "1x5o+1x0e", "1x6e+1x4e+1x1o+1x5o"),
    "odd one": odd_one,
    "every mode": every_mode,
}
USUAL = SPECS["usual"]()


@pytest.fixture(params=SPECS.values(), ids=SPECS)
def spec(request):
    return request.param()


@pytest.fixture
def make(graph_ops):
    def operands(edges, spec=USUAL, device="cpu", dtype=F64, seed=0, shared=False):
        n, e, numel = edges.num_nodes, edges.num_edges, spec.weight_numel
        shapes = {"x": (n, spec.dims[0]), "y": (e, spec.dims[1]), "weight": (numel,) if shared else (e, numel)}
        return graph_ops.normal(seed, device, dtype, **shapes)

    return operands


def op(edges, spec=USUAL):
    return lambda x, y, weight: tensor_product_conv(x, y, weight, edges, spec)


def formula(edges, spec=USUAL):
    """Gather, product of every edge, index_add; differentiated by PyTorch."""

    def value(x, y, weight):
        messages = product.forward(x[edges.senders], y, weight, spec.text)
        return x.new_zeros(len(x), spec.dims[2]).index_add(0, edges.receivers, messages)

    return value


@pytest.mark.parametrize("shared", [False, True])
def test_is_e3nn_and_a_scatter(place, make, graph_ops, shared):
    """Values, gradients and second gradients by each operand."""
    o3 = pytest.importorskip("e3nn.o3")
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    for spec in (USUAL, SPECS["added"](), odd_one()):
        paths = [(*path[:5], 1.0) for path in spec.instructions]
        before = torch.get_default_dtype()
        torch.set_default_dtype(F64)
        theirs = o3.TensorProduct(
            *(str(irreps) for irreps in (spec.irreps_in1, spec.irreps_in2, spec.irreps_out)),
            paths,
            shared_weights=shared,
            internal_weights=False,
        ).to(place)
        torch.set_default_dtype(before)
        factors = [(*p[:5], q.path_weight) for p, q in zip(paths, theirs.instructions, strict=True)]
        ours = TensorProductSpec.of(spec.irreps_in1, spec.irreps_in2, spec.irreps_out, factors)

        def value(x, y, weight, theirs=theirs, spec=spec):
            messages = theirs(x[edges.senders], y, weight)
            return x.new_zeros(len(x), spec.dims[2]).index_add(0, edges.receivers, messages)

        o = make(edges, ours, place, shared=shared)
        found, wanted = graph_ops.ladder(op(edges, ours), o), graph_ops.ladder(value, o)
        graph_ops.assert_ladders_agree(found, wanted, 1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_derivative_ladder_is_autograds(place, make, graph_ops, spec, shared):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, spec, place, shared=shared)
    found, wanted = graph_ops.ladder(op(edges, spec), o), graph_ops.ladder(formula(edges, spec), o)
    graph_ops.assert_ladders_agree(found, wanted, 1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_any_graph(place, make, graph_ops, edges, shared):
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place, shared=shared)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o), 1e-12)


@pytest.mark.parametrize("name", OPERANDS)
def test_gradients_are_finite_differences(place, make, graph_ops, name):
    small = added("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o")
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1], [1, 2, 2, 0], 3), place)
    graph_ops.check_gradients(op(edges, small), make(edges, small, place), name)


def test_float32_is_close_to_float64(place, make, graph_ops, edges):
    """Bound of the largest error over the largest entry: 5e-6, twice differentiated too."""
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place, dtype=torch.float32)
    exact = graph_ops.ladder(formula(edges), {name: t.double() for name, t in o.items()})
    found = graph_ops.ladder(op(edges), o)
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree(found, exact, 5e-6)


def test_only_what_is_asked_for_is_computed(place, make, graph_ops):
    """Whatever the masks and the steps given, the rest is as if all were asked for."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o, steps = tuple(make(edges, device=place).values()), tuple(make(edges, device=place, seed=1).values())
    grad = torch.randn(edges.num_nodes, USUAL.dims[2], dtype=F64).to(place)
    end, ops = (edges.tensors(), USUAL.text), torch.ops.sdas_kernels
    every = ops.tensor_product_conv_backward(grad, *o, *end, [True] * 3)
    for bits in range(8):
        asked = [bool(bits >> n & 1) for n in range(3)]
        some = ops.tensor_product_conv_backward(grad, *o, *end, asked)
        for a, b, wanted in zip(some, every, asked, strict=True):
            assert torch.equal(a, b) if wanted else not a.numel()
        given = [step if wanted else None for step, wanted in zip(steps, asked, strict=True)]
        zeros = [torch.zeros_like(step) if t is None else t for t, step in zip(given, steps, strict=True)]
        twice = ops.tensor_product_conv_double_backward
        whole = twice(*zeros, grad, *o, *end, [True] * 4)
        for mask in ([True] * 4, [False, *asked], [True, *asked]):
            part = twice(*given, grad, *o, *end, mask)
            for a, b, wanted in zip(part, whole, mask, strict=True):
                if wanted:
                    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
                else:
                    assert not a.numel()


def test_non_contiguous_operands(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    wanted = op(edges)(**o)
    assert torch.equal(op(edges)(**{name: t.T.contiguous().T for name, t in o.items()}), wanted)
    leaves = [t.clone().requires_grad_() for t in o.values()]
    z = op(edges)(*leaves)
    grad = torch.randn_like(z)
    by = torch.autograd.grad(z, leaves, grad.T.contiguous().T, retain_graph=True)
    same = torch.autograd.grad(z, leaves, grad)
    assert all(torch.equal(a, b) for a, b in zip(by, same, strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_bitwise_repeatable_with_any_number_of_threads(place, make, graph_ops, shared):
    receivers = torch.arange(3000) // 15
    edges = graph_ops.on(EdgeIndex.from_pairs(receivers, torch.randint(0, 200, (3000,)), 200), place)
    o = make(edges, device=place, dtype=torch.float32, shared=shared)
    threads = 1 if backend_name(OP, place, torch.float32) == "reference" else 3  # matrix products of PyTorch's
    first, again, threaded = (graph_ops.ladder(op(edges), o, threads=count) for count in (1, 1, threads))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], threaded[name]) for name in first)


@pytest.mark.parametrize("kind", ["usual", "no edges"])
def test_opcheck(place, make, graph_ops, kind):
    edges = graph_ops.on(graph_ops.edge_list(kind), place)
    o = tuple(t.requires_grad_() for t in make(edges, device=place).values())
    steps = [t.detach() for t in make(edges, device=place, seed=1).values()]
    ops, end = torch.ops.sdas_kernels, (edges.tensors(), USUAL.text)
    torch.library.opcheck(ops.tensor_product_conv.default, (*o, *end))
    grad = torch.randn(edges.num_nodes, USUAL.dims[2], dtype=F64, device=place, requires_grad=True)
    torch.library.opcheck(ops.tensor_product_conv_backward.default, (grad, *o, *end, [True] * 3))
    plain = tuple(t.detach() for t in (grad, *o))
    twice = ops.tensor_product_conv_double_backward.default
    torch.library.opcheck(twice, (*steps, *plain, *end, [True] * 4))
    steps[1] = None
    torch.library.opcheck(twice, (*steps, *plain, *end, [True, False, True, True]))


def test_third_derivative_is_refused_and_not_zero(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    point = o["y"].requires_grad_()
    (first,) = torch.autograd.grad(op(edges)(**o).pow(4).sum(), point, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), point, create_graph=True)
    with pytest.raises(RuntimeError, match="tensor_product_conv: its second derivative cannot"):
        torch.autograd.grad(second.square().sum(), point)


@pytest.mark.parametrize("form", [TensorProductSpec, str])
def test_compiles_once_for_every_edge_count(place, make, graph_ops, form):
    given = str(USUAL) if form is str else USUAL
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(x, y, weight, index):
        return tensor_product_conv(x, y, weight, EdgeIndex(*index), given)

    for n, e in ((5, 12), (5, 17), (8, 31), (4, 3), (20, 90)):
        receivers = torch.randint(0, n, (e,)).sort().values
        edges = graph_ops.on(EdgeIndex.from_pairs(receivers, torch.randint(0, n, (e,)), n), place)
        leaves = {name: t.requires_grad_() for name, t in make(edges, device=place).items()}
        z, wanted = compiled(**leaves, index=edges.tensors()), op(edges)(**leaves)
        torch.testing.assert_close(z, wanted, rtol=1e-13, atol=1e-13)
        by = [torch.autograd.grad(a.square().sum(), list(leaves.values())) for a in (z, wanted)]
        torch.testing.assert_close(*by, rtol=1e-12, atol=1e-12)
    assert counter.frame_count <= 3  # first static, then dynamic in edges, then in atoms


def test_no_weight_where_no_path_has_one(place, make, graph_ops):
    plain = spec_of("3x1o", "1x1o", "3x0e", [(0, 0, 0, "uvu", False)])
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, plain, place)
    wanted = formula(edges, plain)(**o)
    torch.testing.assert_close(tensor_product_conv(o["x"], o["y"], None, edges, plain), wanted)


def test_without_paths_everything_is_zero(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    for empty in (spec_of("2x1o", "1x1o", "3x0e", []), spec_of("0x1o", "1x1o", "0x0e+2x1o", [(0, 0, 0, "uvu", True)])):
        leaves = [t.requires_grad_() for t in make(edges, empty, place).values()]
        z = op(edges, empty)(*leaves)
        assert z.shape == (edges.num_nodes, empty.dims[2])
        assert not z.any()
        first = torch.autograd.grad(z.sum(), leaves)
        assert [g.shape for g in first] == [t.shape for t in leaves]
        assert not any(g.any() for g in first)


WRONG = {
    "dtype": ({"y": lambda t: t.float()}, TypeError, "y is torch.float32 but x is torch.float64"),
    "kind": ({"x": lambda t: 3}, TypeError, "x must be a torch.Tensor, got int"),
    "device": ({"y": lambda t: t.to("meta")}, ValueError, "y is on meta but x is on cpu"),
    "atoms": ({"x": lambda t: t[1:]}, ValueError, r"x must be \[N, dim1\] with N = 6"),
    "components": ({"x": lambda t: t[:, 1:]}, ValueError, r"x must be \[N, dim1\] with dim1 = 45"),
    "edges": ({"y": lambda t: t[1:]}, ValueError, r"y must be \[E, dim2\] with E = 17"),
    "harmonics": ({"y": lambda t: t[:, :4]}, ValueError, r"y must be \[E, dim2\] with dim2 = 9"),
    "weights": ({"weight": lambda t: t[:, 1:]}, ValueError, r"weight must be \[E, numel\] with numel = 55"),
    "weights of edges": ({"weight": lambda t: t[1:]}, ValueError, r"weight must be \[E, numel\] with E = 17"),
    "shared weight": ({"weight": lambda t: t[0, 1:]}, ValueError, r"weight must be \[numel\] with numel = 55"),
    "no weight": ({"weight": lambda t: None}, ValueError, r"weight must be \[55\] or \[E, 55\], got None"),
    "graph": ({"graph": lambda t: t.tensors()}, TypeError, "graph must be a NeighborGraph or an EdgeIndex, got list"),
    "spec": ({"spec": lambda t: 3}, TypeError, "spec must be a TensorProductSpec or its string, got int"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(make, graph_ops, wrong):
    changes, error, message = wrong
    edges = graph_ops.edge_list("usual")
    given = {**make(edges), "graph": edges, "spec": USUAL}
    ((name, change),) = changes.items()
    with pytest.raises(error, match=f"tensor_product_conv: {message}"):
        tensor_product_conv(**{**given, name: change(given[name])})
