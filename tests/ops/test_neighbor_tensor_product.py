"""Neighbor tensor product: the definition with independent coefficients, exact derivatives, equivariance."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product, reference
from sdas_kernels.paths import Paths

OP = "neighbor_tensor_product"
F64 = torch.float64
OPERANDS = ("attention", "radial", "radial_gain", "value", "harmonics")
USUAL = {"heads": 2, "channels": 4, "radial": 3, "lmax_in": 2, "lmax": 2, "lmax_out": 2, "even_only": True}
SHAPES = {
    "usual": {},
    "odd paths": {"even_only": False},
    "one head": {"heads": 1, "channels": 5},
    "a head per channel": {"heads": 7, "channels": 7},
    "one channel": {"heads": 1, "channels": 1, "radial": 1},
    "scalars": {"lmax_in": 0, "lmax": 0, "lmax_out": 0},
    "scalar source": {"lmax_in": 0, "lmax_out": 2},
    "scalar harmonics": {"lmax": 0, "lmax_out": 2},
    "to scalars": {"lmax_out": 0},
    "beyond the inputs": {"lmax_in": 1, "lmax": 1, "lmax_out": 3},
    "out of reach": {"lmax_in": 0, "lmax": 1, "lmax_out": 2},
    "degree 1": {"lmax_in": 1, "lmax": 1, "lmax_out": 1},
    "degree 3": {"lmax_in": 3, "lmax": 3, "lmax_out": 3},
    "degree 4": {"lmax_in": 4, "lmax": 4, "lmax_out": 4, "channels": 2},
    "odd degree 3": {"lmax_in": 1, "lmax": 3, "lmax_out": 2, "even_only": False},
    "no radial": {"radial": 0},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return {**USUAL, **request.param}


@pytest.fixture
def make(graph_ops):
    def operands(edges, shape=USUAL, device="cpu", dtype=F64, seed=0):
        n, e, rows = edges.num_nodes, edges.num_edges, (shape["lmax"] + 1) ** 2
        return graph_ops.normal(
            seed,
            device,
            dtype,
            attention=(e, shape["heads"]),
            radial=(e, shape["radial"]),
            radial_gain=(shape["heads"], shape["lmax"] + 1, shape["radial"]),
            value=(n, (shape["lmax_in"] + 1) ** 2, shape["channels"]),
            harmonics=(e, rows),
        )

    return operands


def op(edges, shape=USUAL):
    end = (edges, shape["lmax_out"], shape["even_only"])
    return lambda **operands: neighbor_tensor_product(*operands.values(), *end)


def formula(edges, shape=USUAL):
    end = (edges.tensors(), shape["lmax_out"], shape["even_only"])
    return lambda **operands: reference.neighbor_tensor_product(*operands.values(), *end)


def literal(edges, shape, attention, radial, radial_gain, value, harmonics):
    """One edge, one channel's head and one path at a time, with e3nn's coefficients: {path: [N, 2 l3 + 1, C]}."""
    per_head = shape["channels"] // shape["heads"]
    z = {}
    for l3 in range(shape["lmax_out"] + 1):
        for l1 in range(shape["lmax_in"] + 1):
            for l2 in range(shape["lmax"] + 1):
                if not abs(l1 - l2) <= l3 <= l1 + l2 or (shape["even_only"] and (l1 + l2 + l3) % 2):
                    continue
                cg = math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=F64).to(value)
                out = value.new_zeros(len(value), 2 * l3 + 1, shape["channels"])
                for e, (i, j) in enumerate(zip(edges.receivers.tolist(), edges.senders.tolist(), strict=True)):
                    for k in range(shape["heads"]):
                        own = slice(k * per_head, (k + 1) * per_head)
                        w = attention[e, k] * (radial_gain[k, l2] * radial[e]).sum()
                        v, y = value[j, l1**2 : (l1 + 1) ** 2, own], harmonics[e, l2**2 : (l2 + 1) ** 2]
                        out[i, :, own] += w * torch.einsum("abr,ac,b->rc", cg, v, y)
                z[l1, l2, l3] = out
    return z


def wigner_d(l, turn):
    """The matrix that turns harmonics of degree l, solved from e3nn's harmonics of turned vectors."""
    vectors = torch.randn(40, 3, dtype=F64)
    before, after = (o3.spherical_harmonics(l, v, True, "component") for v in (vectors, vectors @ turn.T))
    return torch.linalg.lstsq(before, after).solution.T


@pytest.mark.parametrize("name", ["usual", "odd paths", "scalar source", "beyond the inputs"])
def test_is_the_definition(place, make, graph_ops, name):
    shape = {**USUAL, **SHAPES[name]}
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    wanted, found = literal(edges, shape, **o), op(edges, shape)(**o)
    row = 0
    for l3 in range(shape["lmax_out"] + 1):
        ending = [path for path in wanted if path[2] == l3]
        for m3 in range(2 * l3 + 1):
            for path in ending:
                torch.testing.assert_close(found[:, row], wanted[path][:, m3], rtol=1e-12, atol=1e-12)
                row += 1
    assert row == found.shape[1]


def test_derivative_ladder_is_autograds(place, make, graph_ops, shape):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges, shape), o), graph_ops.ladder(formula(edges, shape), o))


def test_any_graph(place, make, graph_ops, edges):
    edges = graph_ops.on(edges, place)
    o = make(edges, device=place)
    graph_ops.assert_ladders_agree(graph_ops.ladder(op(edges), o), graph_ops.ladder(formula(edges), o))


@pytest.mark.parametrize("name", OPERANDS)
@pytest.mark.parametrize("even_only", [True, False])
def test_gradients_are_finite_differences(place, make, graph_ops, name, even_only):
    shape = {**USUAL, "radial": 2, "lmax_in": 1, "lmax": 1, "lmax_out": 1, "channels": 2, "even_only": even_only}
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 0, 1], [1, 2, 2, 0], 3), place)
    graph_ops.check_gradients(op(edges, shape), make(edges, shape, place), name)


def test_float32_is_close_to_float64(place, make, graph_ops, edges):
    """Bound of the largest error over the largest entry: 5e-6, twice differentiated too."""
    edges = graph_ops.on(edges, place)
    shape = {**USUAL, "heads": 4, "channels": 8, "radial": 8}
    o = make(edges, shape, place, torch.float32)
    exact = graph_ops.ladder(formula(edges, shape), {name: t.double() for name, t in o.items()})
    found = graph_ops.ladder(op(edges, shape), o)
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree(found, exact, 5e-6)


def test_rotating_inputs_rotates_the_output(place, make, graph_ops, shape):
    """And inversion, for features of natural parity, where odd paths are shut."""
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    turn = o3.rand_matrix(dtype=F64)

    def moved(inputs, lmax, sign):
        blocks = [sign**l * wigner_d(l, turn) for l in range(lmax + 1)]
        matrix = torch.block_diag(*blocks).to(inputs)
        return torch.einsum("ab,nb...->na...", matrix, inputs)

    for sign in (1, -1) if shape["even_only"] else (1,):
        turned = {
            **o,
            "value": moved(o["value"], shape["lmax_in"], sign),
            "harmonics": moved(o["harmonics"], shape["lmax"], sign),
        }
        z, z_turned = op(edges, shape)(**o), op(edges, shape)(**turned)
        paths = Paths(shape["lmax_in"], shape["lmax"], shape["lmax_out"], shape["even_only"])
        for l3, rows in enumerate(paths.row_slices()):
            if paths.counts[l3]:
                by_order, wanted = (t[:, rows].unflatten(1, (2 * l3 + 1, -1)) for t in (z_turned, z))
                d = sign**l3 * wigner_d(l3, turn).to(z)
                torch.testing.assert_close(by_order, torch.einsum("ab,nbpc->napc", d, wanted), rtol=1e-10, atol=1e-10)


def test_path_weights_sum_the_paths_of_each_degree(place, make, graph_ops, shape):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, shape, place)
    paths = Paths(shape["lmax_in"], shape["lmax"], shape["lmax_out"], shape["even_only"])
    weight = torch.randn(len(paths.all), shape["channels"], dtype=F64).to(place)
    found = neighbor_tensor_product(*o.values(), edges, shape["lmax_out"], shape["even_only"], weight)
    wanted = found.new_zeros(edges.num_nodes, (shape["lmax_out"] + 1) ** 2, shape["channels"])
    for path, z in literal(edges, shape, **o).items():
        wanted[:, path[2] ** 2 : (path[2] + 1) ** 2] += weight[paths.all.index(path)] * z
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match="path_weight must be"):
        neighbor_tensor_product(*o.values(), edges, shape["lmax_out"], shape["even_only"], weight[:, 1:])


def test_non_contiguous_operands(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    wanted = op(edges)(**o)

    def strided(t):
        return torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0]

    def reversed_axes(t):
        return t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim)))

    for view in (strided, reversed_axes):
        given = {name: view(t) for name, t in o.items()}
        assert not given["value"].is_contiguous()
        assert torch.equal(op(edges)(**given), wanted)
    leaves = [t.clone().requires_grad_() for t in o.values()]
    z = op(edges)(**dict(zip(o, leaves, strict=True)))
    grad = reversed_axes(torch.randn_like(z))
    by = torch.autograd.grad(z, leaves, grad, retain_graph=True)
    same = torch.autograd.grad(z, leaves, grad.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(by, same, strict=True))


def test_bitwise_repeatable_with_any_number_of_threads(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("crowd"), place)
    o = make(edges, device=place, dtype=torch.float32)
    first, again, threaded = (graph_ops.ladder(op(edges), o, threads=threads) for threads in (1, 1, 3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], threaded[name]) for name in first)


@pytest.mark.parametrize("kind", ["usual", "no edges"])
def test_opcheck(place, make, graph_ops, kind):
    edges = graph_ops.on(graph_ops.edge_list(kind), place)
    o = tuple(t.requires_grad_() for t in make(edges, device=place).values())
    tangents = tuple(make(edges, device=place, seed=1).values())
    ops, end = torch.ops.sdas_kernels, (edges.tensors(), 2, True)
    torch.library.opcheck(ops.neighbor_tensor_product.default, (*o, *end))
    grad = torch.randn(edges.num_nodes, Paths(2, 2, 2).rows, 4, dtype=F64, device=place, requires_grad=True)
    torch.library.opcheck(ops.neighbor_tensor_product_backward.default, (grad, *o, *end))
    plain = tuple(t.detach() for t in (grad, *o))
    torch.library.opcheck(ops.neighbor_tensor_product_double_backward.default, (*tangents, *plain, *end))


def test_third_derivative_is_refused_and_not_zero(place, make, graph_ops):
    edges = graph_ops.on(graph_ops.edge_list("usual"), place)
    o = make(edges, device=place)
    point = o["harmonics"].requires_grad_()
    (first,) = torch.autograd.grad(op(edges)(**o).pow(4).sum(), point, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), point, create_graph=True)
    with pytest.raises(RuntimeError, match="neighbor_tensor_product: its second derivative cannot"):
        torch.autograd.grad(second.square().sum(), point)


def test_compiles_once_for_every_edge_count(place, make, graph_ops):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(attention, radial, radial_gain, value, harmonics, index):
        return neighbor_tensor_product(attention, radial, radial_gain, value, harmonics, EdgeIndex(*index), 2)

    for n, e in ((5, 12), (5, 17), (8, 31), (4, 3), (20, 90)):
        receivers = torch.randint(0, n, (e,)).sort().values
        edges = graph_ops.on(EdgeIndex.from_pairs(receivers, torch.randint(0, n, (e,)), n), place)
        leaves = {name: t.requires_grad_() for name, t in make(edges, device=place).items()}
        z, wanted = compiled(**leaves, index=edges.tensors()), op(edges)(**leaves)
        torch.testing.assert_close(z, wanted, rtol=1e-13, atol=1e-13)
        by = [torch.autograd.grad(a.square().sum(), list(leaves.values())) for a in (z, wanted)]
        torch.testing.assert_close(*by, rtol=1e-12, atol=1e-12)
    assert counter.frame_count <= 3  # first static, then dynamic in edges, then in atoms


WRONG = {
    "dtype": ("radial", lambda t: t.float(), TypeError, "radial is torch.float32 but attention is torch.float64"),
    "kind": ("value", lambda t: None, TypeError, "value must be a torch.Tensor, got NoneType"),
    "device": ("value", lambda t: t.to("meta"), ValueError, "value is on meta but attention is on"),
    "atoms": ("value", lambda t: t[1:], ValueError, r"value must be \[N, M1, C\] with N = 6"),
    "edges": ("attention", lambda t: t[1:], ValueError, r"attention must be \[E, K\] with E = 17"),
    "value rows": ("value", lambda t: t[:, 1:], ValueError, r"value has 8 rows, wanted \(lmax \+ 1\)²"),
    "harmonic rows": ("harmonics", lambda t: t[:, :0], ValueError, "harmonics has 0 rows"),
    "heads": ("attention", lambda t: t[:, :1], ValueError, r"radial_gain must be \[K, L2 \+ 1, n\] with K = 1"),
    "functions": ("radial", lambda t: t[:, 1:], ValueError, r"radial_gain must be \[K, L2 \+ 1, n\] with n = 2"),
    "degrees": ("radial_gain", lambda t: t[:, 1:], ValueError, r"radial_gain must be \[K, L2 \+ 1, n\] with L2 = 2"),
    "channels": ("value", lambda t: t[:, :, 1:], ValueError, "3 channels cannot be split evenly among 2 heads"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(make, graph_ops, wrong):
    name, change, error, message = wrong
    edges = graph_ops.edge_list("usual")
    o = make(edges)
    with pytest.raises(error, match=f"neighbor_tensor_product: {message}"):
        op(edges)(**{**o, name: change(o[name])})


def test_lmax_out_must_not_be_negative(make, graph_ops):
    edges = graph_ops.edge_list("usual")
    with pytest.raises(ValueError, match=r"lmax_out must be 0\.\.8, got -1"):
        op(edges, {**USUAL, "lmax_out": -1})(**make(edges))
