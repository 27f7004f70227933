"""Edge softmax: normalized, the formula's derivatives twice, no overflow, the same answer however it is called."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.edge_softmax import edge_softmax, reference

OP = "edge_softmax"
F64 = torch.float64
OPERANDS = ("query", "key", "sink", "harmonics", "radial", "envelope")
SIZES = {  # heads, key channels, harmonics, radial functions
    "usual": (2, 3, 4, 2),
    "one head": (1, 4, 9, 8),
    "many heads": (7, 1, 1, 1),
    "no key": (2, 0, 4, 2),
    "no harmonics": (2, 3, 0, 2),
    "no radial": (2, 3, 4, 0),
    "sink only": (3, 0, 0, 0),
}


@pytest.fixture
def make(graph_ops):
    def operands(edges, sizes=(2, 3, 4, 2), device="cpu", dtype=F64, seed=0):
        heads, channels, harmonics, radial = sizes
        n, e = edges.num_nodes, edges.num_edges
        drawn = graph_ops.normal(
            seed,
            device,
            dtype,
            query=(n, heads, channels + harmonics + radial),
            key=(n, heads, channels),
            sink=(n, heads),
            harmonics=(e, harmonics),
            radial=(e, radial),
            envelope=(e,),
        )
        return {**drawn, "envelope": drawn["envelope"].sigmoid()}

    return operands


def op(edges: EdgeIndex):
    return lambda **operands: edge_softmax(**operands, graph=edges)


def formula(edges: EdgeIndex):
    return lambda **operands: reference.edge_softmax(**operands, index=edges.tensors())


def literal(edges, query, key, sink, harmonics, radial, envelope):
    """The definition, one edge after the other, without any shift of the exponent."""
    logits = torch.stack(
        [
            (query[i] * torch.cat([key[j], torch.cat([harmonics[e], radial[e]]).expand(len(key[j]), -1)], 1)).sum(1)
            for e, (i, j) in enumerate(zip(edges.receivers.tolist(), edges.senders.tolist(), strict=True))
        ]
    )
    raw = envelope[:, None] * logits.exp()
    return torch.stack(
        [raw[e] / (sink[i].exp() + raw[edges.receivers == i].sum(0)) for e, i in enumerate(edges.receivers)]
    )


def test_is_the_definition(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    torch.testing.assert_close(op(edges)(**o), literal(edges, **o), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_derivative_ladder_is_autograds(place, make, graph_ops, sizes):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, sizes, place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))


def test_any_graph(place, make, graph_ops, edges):
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))


@pytest.mark.parametrize("name", OPERANDS)
def test_gradients_are_finite_differences(place, make, graph_ops, name):
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1, 3], [1, 2, 2, 0, 0], 4), place)
    graph_ops.check_gradients(op(edges), make(edges, (2, 2, 3, 2), place), name)


@pytest.mark.parametrize("name", OPERANDS)
def test_gradients_without_a_sink_are_finite_differences(place, make, graph_ops, name):
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1, 3], [1, 2, 2, 0, 0], 4), place)
    o = make(edges, (2, 2, 3, 2), place)
    o["sink"] = torch.full_like(o["sink"], -torch.inf)
    if name == "sink":
        graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))
    else:
        graph_ops.check_gradients(op(edges), o, name)


def test_weights_of_neighbors_and_sink_sum_to_one(place, make, graph_ops, edges):
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place)
    total = torch.zeros_like(o["sink"]).index_add(0, edges.receivers, op(edges)(**o))
    assert ((total >= 0) & (total < 1)).all()
    o["sink"] = torch.full_like(o["sink"], -torch.inf)
    total = torch.zeros_like(o["sink"]).index_add(0, edges.receivers, op(edges)(**o))
    has_neighbors = (edges.row_ptr.diff() > 0).to(F64)[:, None].expand_as(total)
    torch.testing.assert_close(total, has_neighbors, rtol=1e-13, atol=1e-13)


def test_plain_softmax_without_sink_and_envelope(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("isolated"), place)
    o = make(edges, (2, 3, 0, 0), place)
    o["sink"], o["envelope"] = torch.full_like(o["sink"], -torch.inf), torch.ones_like(o["envelope"])
    logit = (o["query"][edges.receivers] * o["key"][edges.senders]).sum(2)
    wanted = torch.cat([logit[edges.receivers == i].softmax(0) for i in range(edges.num_nodes)])
    torch.testing.assert_close(op(edges)(**o), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("sink", ["huge", "opposite", "off"])
@pytest.mark.parametrize("sign", [1, -1])
def test_huge_logits_do_not_overflow(place, make, graph_ops, dtype, sink, sign):
    """Logits of ±1e4: finite to the second derivative, and the value of a shift of every logit is nothing."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, (2, 1, 0, 1), place, dtype)
    base = op(edges)(**{**o, "sink": torch.zeros_like(o["sink"])})
    shift = sign * 1e4
    moved = {
        **o,
        "query": torch.cat([o["query"], torch.full_like(o["query"][:, :, :1], shift)], 2),
        "radial": torch.cat([o["radial"], torch.ones_like(o["radial"])], 1),
        "sink": torch.full_like(o["sink"], {"huge": shift, "opposite": -shift, "off": -torch.inf}[sink]),
    }
    found = graph_ops.ladder(op(edges), moved)
    assert all(t.isfinite().all() for t in found.values())
    if sink == "huge":
        torch.testing.assert_close(found["value"], base, rtol=0, atol=1e-10 if dtype == F64 else 2e-3)
    elif sink == "opposite" and sign < 0:
        assert found["value"].abs().max() == 0
    else:
        total = torch.zeros_like(o["sink"]).index_add(0, edges.receivers, found["value"])
        assert (total[edges.row_ptr.diff() > 0] - 1).abs().max() < 1e-5


def test_neighbor_at_the_cutoff_weighs_nothing(place, make, graph_ops):
    """envelope = 0 for one neighbor, and for every neighbor of an atom without a sink: no 0/0."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    o["envelope"][edges.receivers == 1] = 0
    o["envelope"][0] = 0
    assert op(edges)(**o)[0].abs().max() == 0
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))
    o["sink"] = torch.full_like(o["sink"], -torch.inf)
    found = graph_ops.ladder(op(edges), o)
    assert all(t.isfinite().all() for t in found.values())
    assert found["value"][edges.receivers == 1].abs().max() == 0


def test_float32_is_close_to_float64(place, make, graph_ops, edges):
    """Bounds of the largest error over the largest entry: 2e-6 for values, 1e-5 twice differentiated."""
    edges = graph_ops.on(edges, place)
    o = make(edges, (4, 4, 9, 8), place, torch.float32)
    exact = graph_ops.ladder(formula(edges), {name: t.double() for name, t in o.items()})
    found = graph_ops.ladder(op(edges), o)
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree({"value": found["value"]}, {"value": exact["value"]}, 2e-6)
    graph_ops.assert_ladders_agree(found, exact, 1e-5)


def test_non_contiguous_operands(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)

    def strided(t):
        return torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0]

    def reversed_axes(t):
        return t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim)))

    wanted = graph_ops.ladder(op(edges), o)
    for view in (strided, reversed_axes):
        given = {name: view(t) for name, t in o.items()}
        assert not given["query"].is_contiguous()
        graph_ops.assert_ladders_agree({"value": op(edges)(**given)}, {"value": wanted["value"]}, 0)
    leaves = {name: t.clone().requires_grad_() for name, t in o.items()}
    alpha = op(edges)(**leaves)
    grad = torch.randn(alpha.shape[::-1], dtype=F64, device=place).T
    by = torch.autograd.grad(alpha, list(leaves.values()), grad, retain_graph=True)
    same = torch.autograd.grad(alpha, list(leaves.values()), grad.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(by, same, strict=True))


def test_bitwise_repeatable_with_any_number_of_threads(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("crowd"), place)
    o = make(edges, device=place, dtype=torch.float32)
    first, again, threaded = (graph_ops.ladder(op(edges), o, threads=threads) for threads in (1, 1, 3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], threaded[name]) for name in first)


@pytest.mark.parametrize("kind", ["usual", "no edges", "isolated"])
def test_opcheck(place, make, graph_ops, kind):
    edges = graph_ops.on(graph_ops.edge_list(kind), place)
    o = tuple(t.requires_grad_() for t in make(edges, device=place).values())
    tangents = tuple(make(edges, device=place, seed=1).values())
    grad = torch.randn(edges.num_edges, 2, dtype=F64, device=place, requires_grad=True)
    ops, index = torch.ops.sdas_kernels, edges.tensors()
    torch.library.opcheck(ops.edge_softmax.default, (*o, index))
    torch.library.opcheck(ops.edge_softmax_backward.default, (grad, *o, index))
    plain = tuple(t.detach() for t in (grad, *o))
    torch.library.opcheck(ops.edge_softmax_double_backward.default, (*tangents, *plain, index))


def test_third_derivative_is_refused_and_not_zero(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    point = o["sink"].requires_grad_()
    (first,) = torch.autograd.grad(op(edges)(**o).square().sum(), point, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), point, create_graph=True)
    with pytest.raises(RuntimeError, match="edge_softmax: its second derivative cannot"):
        torch.autograd.grad(second.square().sum(), point)


def test_compiles_once_for_every_edge_count(place, make, graph_ops):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(query, key, sink, harmonics, radial, envelope, index):
        return edge_softmax(query, key, sink, harmonics, radial, envelope, EdgeIndex(*index))

    for n, e in ((5, 12), (5, 17), (8, 31), (4, 3), (20, 90)):
        receivers = torch.randint(0, n, (e,)).sort().values
        edges = graph_ops.on(EdgeIndex.from_pairs(receivers, torch.randint(0, n, (e,)), n), place)
        o = make(edges, device=place)
        leaves = {name: t.requires_grad_() for name, t in o.items()}
        alpha = compiled(**leaves, index=edges.tensors())
        wanted = op(edges)(**leaves)
        torch.testing.assert_close(alpha, wanted, rtol=1e-13, atol=1e-13)
        by = [torch.autograd.grad(a.square().sum(), list(leaves.values())) for a in (alpha, wanted)]
        torch.testing.assert_close(*by, rtol=1e-12, atol=1e-12)
    assert counter.frame_count <= 3  # first static, then dynamic in edges, then in atoms


WRONG = {
    "dtype": ("key", lambda t: t.float(), TypeError, "key is torch.float32 but query is torch.float64"),
    "integer": ("sink", lambda t: t.long(), TypeError, "sink must have a floating dtype"),
    "kind": ("radial", lambda t: t.tolist(), TypeError, "radial must be a torch.Tensor, got list"),
    "device": ("envelope", lambda t: t.to("meta"), ValueError, "envelope is on meta but query is on"),
    "query": ("query", lambda t: t[:, :, 1:], ValueError, r"query must be \[N, K, D \+ M \+ n\] with D \+ M \+ n = 9"),
    "heads": ("sink", lambda t: t[:, :1], ValueError, r"sink must be \[N, K\] with K = 2"),
    "atoms": ("key", lambda t: t[1:], ValueError, r"key must be \[N, K, D\] with N = 6"),
    "edges": ("harmonics", lambda t: t[1:], ValueError, r"harmonics must be \[E, M\] with E = 17"),
    "axes": ("envelope", lambda t: t[:, None], ValueError, r"envelope must be \[E\], got \[17, 1\]"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(make, graph_ops, wrong):
    name, change, error, message = wrong
    edges = graph_ops.edge_list("usual")
    o = make(edges)
    with pytest.raises(error, match=f"edge_softmax: {message}"):
        op(edges)(**{**o, name: change(o[name])})


def test_graph_must_be_a_graph(make, graph_ops):
    edges = graph_ops.edge_list("usual")
    with pytest.raises(TypeError, match="graph must be a NeighborGraph or an EdgeIndex, got list"):
        edge_softmax(**make(edges), graph=edges.tensors())
