"""Neighbor attention: its two halves as one call, with exact first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.edge_softmax import edge_softmax
from sdas_kernels.ops.neighbor_attention import neighbor_attention, reference
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product
from sdas_kernels.paths import Paths

OP = "neighbor_attention"
F64 = torch.float64
OPERANDS = ("query", "key", "sink", "value", "radial_gain", "harmonics", "radial", "envelope")
USUAL = {
    "heads": 2, "channels": 4, "key": 3, "radial": 3, "lmax_in": 2, "lmax": 2, "lmax_out": 2, "even_only": True
}  # fmt: skip
SHAPES = {
    "usual": {},
    "odd paths": {"even_only": False},
    "one head": {"heads": 1, "channels": 5},
    "a head per channel": {"heads": 7, "channels": 7},
    "one channel": {"heads": 1, "channels": 1, "radial": 1, "key": 1},
    "no key": {"key": 0},
    "scalars": {"lmax_in": 0, "lmax": 0, "lmax_out": 0},
    "scalar source": {"lmax_in": 0},
    "to scalars": {"lmax_out": 0},
    "beyond the inputs": {"lmax_in": 1, "lmax": 1, "lmax_out": 3},
    "degree 1": {"lmax_in": 1, "lmax": 1, "lmax_out": 1},
    "degree 3": {"lmax_in": 3, "lmax": 3, "lmax_out": 3},
    "degree 4": {"lmax_in": 4, "lmax": 4, "lmax_out": 4, "channels": 2},
    "no radial": {"radial": 0},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return {**USUAL, **request.param}


@pytest.fixture
def make(graph_ops):
    def operands(edges, shape=USUAL, device="cpu", dtype=F64, seed=0):
        n, e, rows = edges.num_nodes, edges.num_edges, (shape["lmax"] + 1) ** 2
        heads, key, radial = shape["heads"], shape["key"], shape["radial"]
        drawn = graph_ops.normal(
            seed,
            device,
            dtype,
            query=(n, heads, key + rows + radial),
            key=(n, heads, key),
            sink=(n, heads),
            value=(n, (shape["lmax_in"] + 1) ** 2, shape["channels"]),
            radial_gain=(heads, shape["lmax"] + 1, radial),
            harmonics=(e, rows),
            radial=(e, radial),
            envelope=(e,),
        )
        return {**drawn, "query": drawn["query"] / 2, "envelope": drawn["envelope"].sigmoid()}

    return operands


def op(edges, shape=USUAL):
    end = (edges, shape["lmax_out"], shape["even_only"])
    return lambda **operands: neighbor_attention(*operands.values(), *end)


def formula(edges, shape=USUAL):
    end = (edges.tensors(), shape["lmax_out"], shape["even_only"])
    return lambda **operands: reference.neighbor_attention(*operands.values(), *end)


def test_is_its_two_halves(place, make, graph_ops, shape):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    alpha = edge_softmax(o["query"], o["key"], o["sink"], o["harmonics"], o["radial"], o["envelope"], edges)
    paths = Paths(shape["lmax_in"], shape["lmax"], shape["lmax_out"], shape["even_only"])
    weight = torch.randn(len(paths.all), shape["channels"], dtype=F64).to(place)
    for path_weight in (None, weight):
        end = (edges, shape["lmax_out"], shape["even_only"], path_weight)
        found = neighbor_attention(*o.values(), *end)
        wanted = neighbor_tensor_product(alpha, o["radial"], o["radial_gain"], o["value"], o["harmonics"], *end)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_derivative_ladder_is_autograds(place, make, graph_ops, shape):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges, shape), o), graph_ops.ladder(formula(edges, shape), o))


def test_any_graph(place, make, graph_ops, edges):
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))


@pytest.mark.parametrize(
    "wanted",
    [
        ("harmonics", "radial", "envelope"),
        ("query", "harmonics"),
        ("key", "radial"),
        ("value",),
        ("sink", "envelope"),
        ("radial_gain",),
    ],
    ids=" ".join,
)
def test_gradients_that_are_wanted_alone(place, make, graph_ops, wanted):
    """The others are not made; those that are, and what they depend on, do not change."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    steps = {name: t.to(place) for name, t in make(edges, seed=1).items()}

    def ladder(some):
        leaves = {name: t.clone().requires_grad_(name in some) for name, t in o.items()}
        z = op(edges)(**leaves)
        grad = torch.ones_like(z).requires_grad_()
        first = torch.autograd.grad(z, [leaves[name] for name in wanted], grad, create_graph=True)
        along = sum((by * steps[name]).sum() for name, by in zip(wanted, first, strict=True))
        return *first, *torch.autograd.grad(along, [grad, *(leaves[name] for name in wanted)], allow_unused=True)

    for found, expected in zip(ladder(wanted), ladder(OPERANDS), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", range(20))
def test_random_sizes(place, make, graph_ops, seed):
    """Channel counts off every vector width, few or many heads, any degrees; the tolerance is that of float64."""
    random = np.random.default_rng(seed)
    n, e = int(random.integers(1, 9)), int(random.integers(0, 40))
    receivers = np.sort(random.integers(0, n, e)).tolist()
    edges = graph_ops.on(graph_ops.from_lists(receivers, random.integers(0, n, e).tolist(), n), place)
    heads = int(random.choice([1, 2, 3, 5, 9, 17]))
    lmax_in, lmax, lmax_out = (int(l) for l in random.integers(0, 4, 3))
    shape = {
        "heads": heads,
        "channels": heads * int(random.choice([1, 2, 3, 7])),
        "key": int(random.integers(0, 6)),
        "radial": int(random.integers(1, 11)),
        "lmax_in": lmax_in,
        "lmax": lmax,
        "lmax_out": lmax_out,
        "even_only": bool(random.integers(2)),
    }
    o = make(edges, shape, place, seed=seed)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges, shape), o), graph_ops.ladder(formula(edges, shape), o))


@pytest.mark.parametrize("kind", ["usual", "isolated"])
def test_without_a_sink(place, make, graph_ops, kind):
    edges = graph_ops.on(graph_ops.edge_list(kind), place)
    o = make(edges, device=place)
    o["sink"] = torch.full_like(o["sink"], -torch.inf)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_huge_logits_do_not_overflow(place, make, graph_ops, dtype, shift):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place, dtype=dtype)
    o["key"][:, :, 0], o["query"][:, :, 0] = 1, shift
    for sink in (0.0, shift, -torch.inf):
        found = graph_ops.ladder(op(edges), {**o, "sink": torch.full_like(o["sink"], sink)})
        assert all(t.isfinite().all() for t in found.values())


@pytest.mark.parametrize("name", OPERANDS)
def test_gradients_are_finite_differences(place, make, graph_ops, name):
    shape = {**USUAL, "key": 1, "radial": 2, "lmax_in": 1, "lmax": 1, "lmax_out": 1, "channels": 2}
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1], [1, 2, 2, 0], 3), place)
    graph_ops.check_gradients(op(edges, shape), make(edges, shape, place), name)


def test_float32_is_close_to_float64(place, make, graph_ops, edges):
    """Bounds of the largest error over the largest entry: 5e-6 for values, 2e-5 twice differentiated."""
    edges = graph_ops.on(edges, place)
    shape = {**USUAL, "heads": 4, "channels": 8, "radial": 8}
    o = make(edges, shape, place, torch.float32)
    exact = graph_ops.ladder(formula(edges, shape), {name: t.double() for name, t in o.items()})
    found = graph_ops.ladder(op(edges, shape), o)
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree({"value": found["value"]}, {"value": exact["value"]}, 5e-6)
    graph_ops.assert_ladders_agree(found, exact, 2e-5)


def test_non_contiguous_operands(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    wanted = op(edges)(**o)
    given = {name: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0] for name, t in o.items()}
    assert not given["query"].is_contiguous()
    assert torch.equal(op(edges)(**given), wanted)
    leaves = [t.clone().requires_grad_() for t in o.values()]
    z = op(edges)(**dict(zip(o, leaves, strict=True)))
    grad = torch.randn(z.shape[::-1], dtype=F64, device=place).permute(2, 1, 0)
    by = torch.autograd.grad(z, leaves, grad, retain_graph=True)
    same = torch.autograd.grad(z, leaves, grad.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(by, same, strict=True))


def test_bitwise_repeatable_with_any_number_of_threads(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("crowd"), place)
    o = make(edges, device=place, dtype=torch.float32)
    first, again, threaded = (graph_ops.ladder(op(edges), o, threads=threads) for threads in (1, 1, 3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], threaded[name]) for name in first)


def test_opcheck(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = tuple(t.requires_grad_() for t in make(edges, device=place).values())
    tangents = tuple(make(edges, device=place, seed=1).values())
    ops, end = torch.ops.sdas_kernels, (edges.tensors(), 2, True)
    torch.library.opcheck(ops.neighbor_attention.default, (*o, *end))
    grad = torch.randn(edges.num_nodes, Paths(2, 2, 2).rows, 4, dtype=F64, device=place, requires_grad=True)
    for needs in ([True] * 8, [False] * 5 + [True] * 3):
        torch.library.opcheck(ops.neighbor_attention_backward.default, (grad, *o, *end, needs))
    plain = tuple(t.detach() for t in (grad, *o))
    torch.library.opcheck(ops.neighbor_attention_double_backward.default, (*tangents, *plain, *end))


def test_compiles_once_for_every_edge_count(place, make, graph_ops):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(operands, index):
        return neighbor_attention(*operands, EdgeIndex(*index), 2)

    for n, e in ((5, 12), (5, 17), (8, 31), (4, 3), (20, 90)):
        receivers = torch.randint(0, n, (e,)).sort().values
        edges = graph_ops.on(EdgeIndex.from_pairs(receivers, torch.randint(0, n, (e,)), n), place)
        leaves = [t.requires_grad_() for t in make(edges, device=place).values()]
        z, wanted = compiled(leaves, edges.tensors()), neighbor_attention(*leaves, edges, 2)
        torch.testing.assert_close(z, wanted, rtol=1e-12, atol=1e-12)
        by = [torch.autograd.grad(a.square().sum(), leaves) for a in (z, wanted)]
        torch.testing.assert_close(*by, rtol=1e-11, atol=1e-11)
    assert counter.frame_count <= 3  # first static, then dynamic in edges, then in atoms


WRONG = {
    "dtype": ("key", lambda t: t.float(), TypeError, "key is torch.float32 but query is torch.float64"),
    "kind": ("value", lambda t: None, TypeError, "value must be a torch.Tensor, got NoneType"),
    "device": ("radial", lambda t: t.to("meta"), ValueError, "radial is on meta but query is on"),
    "atoms": ("value", lambda t: t[1:], ValueError, r"value must be \[N, M1, C\] with N = 6"),
    "edges": ("envelope", lambda t: t[1:], ValueError, r"envelope must be \[E\] with E = 17"),
    "query": ("query", lambda t: t[:, :, 1:], ValueError, r"query must be \[N, K, D \+ M2 \+ n\] with .* = 15"),
    "rows": ("value", lambda t: t[:, 1:], ValueError, r"value has 8 rows, wanted \(lmax \+ 1\)²"),
    "heads": ("sink", lambda t: t[:, :1], ValueError, r"sink must be \[N, K\] with K = 2"),
    "gains": ("radial_gain", lambda t: t[:, 1:], ValueError, r"radial_gain must be .* with L2 \+ 1 = 3"),
    "channels": ("value", lambda t: t[:, :, 1:], ValueError, "3 channels cannot be split evenly among 2 heads"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(make, graph_ops, wrong):
    name, change, error, message = wrong
    edges = graph_ops.edge_list("usual")
    o = make(edges)
    with pytest.raises(error, match=f"neighbor_attention: {message}"):
        op(edges)(**{**o, name: change(o[name])})
