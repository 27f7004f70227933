"""Triton kernels against the reference in float64. Run by `test_triton.py`, in a process of its own.

With TRITON_INTERPRET=1 the kernels run in Triton's interpreter on CPU tensors; without, on a GPU. Memory is filled with
NaN before a kernel writes it, so what a kernel leaves out is seen.
"""

from __future__ import annotations

import os

import pytest
import torch

from sdas_kernels import dispatch, tuning
from sdas_kernels.dispatch import Backend
from sdas_kernels.ops.edge_geometry import reference as geometry_reference
from sdas_kernels.ops.edge_geometry import triton as geometry
from sdas_kernels.ops.edge_softmax import reference as softmax_reference
from sdas_kernels.ops.edge_softmax import triton as softmax
from sdas_kernels.ops.neighbor_attention import neighbor_attention
from sdas_kernels.ops.neighbor_attention import reference as attention_reference
from sdas_kernels.ops.neighbor_attention import triton as attention
from sdas_kernels.ops.neighbor_tensor_product import reference as product_reference
from sdas_kernels.ops.neighbor_tensor_product import triton as product
from sdas_kernels.ops.radial_basis import reference as radial_reference
from sdas_kernels.ops.radial_basis import triton as radial
from sdas_kernels.ops.spherical_harmonics import reference as harmonics_reference
from sdas_kernels.ops.spherical_harmonics import triton as harmonics

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("NEITHER INTERPRETED NOR ON A GPU: set TRITON_INTERPRET=1", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("interpreter_bounds_loops", "unwritten_memory_is_nan")
GRAPHS = ("usual", "no edges", "one atom", "images", "isolated", "duplicates", "one-way")
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 2e-2}
SOFTMAX = {"heads": 3, "key": 3, "harmonics": 4, "radial": 2}
SOFTMAXES = {
    "usual": {},
    "several blocks of heads": {"heads": 11, "key": 8, "harmonics": 9, "radial": 8},
    "one head": {"heads": 1, "key": 5, "harmonics": 9},
    "no key": {"key": 0},
    "key alone": {"harmonics": 0, "radial": 0},
    "sink alone": {"key": 0, "harmonics": 0, "radial": 0},
}
PRODUCT = {"heads": 2, "channels": 6, "radial": 2, "lmax_in": 1, "lmax": 1, "lmax_out": 1, "even_only": True}
PRODUCTS = {
    "usual": {},
    "odd paths": {"even_only": False, "lmax": 2},
    "one head": {"heads": 1, "channels": 5},
    "a head per channel": {"heads": 7, "channels": 7},
    "several blocks of heads": {"heads": 20, "channels": 40},
    "a head in several blocks": {"heads": 2, "channels": 70},
    "a head in several blocks, a tile in several pieces": {"heads": 1, "channels": 40, "lmax_in": 2, "lmax": 2},
    "one channel": {"heads": 1, "channels": 1},
    "scalars": {"lmax_in": 0, "lmax": 0, "lmax_out": 0},
    "scalar source": {"lmax_in": 0, "lmax": 2, "lmax_out": 2},
    "scalar harmonics": {"lmax": 0, "lmax_out": 2},
    "to scalars": {"lmax_in": 2, "lmax_out": 0},
    "out of reach": {"lmax_in": 0, "lmax_out": 2},
    "degree 2": {"lmax_in": 2, "lmax": 2, "lmax_out": 2, "channels": 2},
    "degree 3": {"lmax_in": 3, "lmax": 3, "lmax_out": 3, "channels": 2},
    "degree 4": {"lmax_in": 4, "lmax": 4, "lmax_out": 1, "channels": 2},
    "above the kernels' degree": {"lmax_in": 5, "lmax": 1, "lmax_out": 1, "channels": 2},
}


def softmax_operands(graph_ops, edges, shape, seed):
    n, e, k = edges.num_nodes, edges.num_edges, shape["heads"]
    o = graph_ops.normal(
        seed,
        "cpu",
        torch.float64,
        query=(n, k, shape["key"] + shape["harmonics"] + shape["radial"]),
        key=(n, k, shape["key"]),
        sink=(n, k),
        harmonics=(e, shape["harmonics"]),
        radial=(e, shape["radial"]),
        envelope=(e,),
    )
    return {**o, "envelope": o["envelope"].abs()}


def product_operands(graph_ops, edges, shape, seed):
    n, e, k = edges.num_nodes, edges.num_edges, shape["heads"]
    return graph_ops.normal(
        seed,
        "cpu",
        torch.float64,
        attention=(e, k),
        radial=(e, shape["radial"]),
        radial_gain=(k, shape["lmax"] + 1, shape["radial"]),
        value=(n, (shape["lmax_in"] + 1) ** 2, shape["channels"]),
        harmonics=(e, (shape["lmax"] + 1) ** 2),
    )


def assert_all_agree(kernels, reference, operands, steps, edges, *end, dtype=torch.float64, tolerance=None):
    """Value, gradients and gradients of the backward, of the same operands rounded to `dtype`."""
    tolerance = tolerance or TOLERANCE[dtype]

    def rounded(tensors):
        return [t.to(dtype) for t in tensors.values()]

    o, t = rounded(operands), rounded(steps)
    value = reference.forward(*(x.double() for x in o), edges.tensors(), *end)
    grad = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(dtype)
    calls = {"forward": o, "backward": [grad, *o], "double_backward": [*t, grad, *o]}
    index = [i.to(DEVICE) for i in edges.tensors()]
    for name, given in calls.items():
        wanted = getattr(reference, name)(*(x.double() for x in given), edges.tensors(), *end)
        placed = [x.to(DEVICE) for x in given]
        found = getattr(kernels, name)(*placed, index, *end)
        again = found if INTERPRETED else getattr(kernels, name)(*placed, index, *end)
        if name == "forward":
            wanted, found, again = (wanted,), (found,), (again,)
        for place, (a, b, c) in enumerate(zip(found, wanted, again, strict=True)):
            where = f"{name}, result {place}"
            assert a.shape == b.shape, where
            assert a.dtype == dtype, where
            assert a.is_contiguous(), where
            assert torch.equal(a, c), f"{where}: not repeatable"
            if b.numel():
                worst = (a.cpu().double() - b).abs().max().item()
                assert worst <= tolerance * max(1.0, b.abs().max().item()), f"{where}: off by {worst:.3g}"


def check_softmax(graph_ops, edges, shape=SOFTMAX, change=lambda o: o, **how):
    operands, steps = (softmax_operands(graph_ops, edges, shape, seed) for seed in (0, 1))
    assert_all_agree(softmax, softmax_reference, change(operands), steps, edges, **how)


def check_product(graph_ops, edges, shape=PRODUCT, **how):
    operands, steps = (product_operands(graph_ops, edges, shape, seed) for seed in (0, 1))
    end = (shape["lmax_out"], shape["even_only"])
    assert_all_agree(product, product_reference, operands, steps, edges, *end, **how)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_of_any_shape(graph_ops, name):
    check_softmax(graph_ops, graph_ops.edge_list("isolated"), {**SOFTMAX, **SOFTMAXES[name]})


@pytest.mark.parametrize("kind", GRAPHS)
def test_softmax_of_any_graph(graph_ops, kind):
    check_softmax(graph_ops, graph_ops.edge_list(kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_of_less_precision(graph_ops, dtype):
    check_softmax(graph_ops, graph_ops.edge_list("isolated"), dtype=dtype)


def test_softmax_without_a_sink(graph_ops):
    without = {"sink": torch.full((5, 3), -torch.inf, dtype=torch.float64)}
    check_softmax(graph_ops, graph_ops.edge_list("isolated"), change=lambda o: {**o, **without})


def test_softmax_of_closed_envelopes(graph_ops):
    """Without a sink the denominator is then zero, and so are the weights."""

    def change(o):
        return {**o, "sink": torch.full_like(o["sink"], -torch.inf), "envelope": torch.zeros_like(o["envelope"])}

    check_softmax(graph_ops, graph_ops.edge_list("isolated"), change=change)


def test_softmax_of_large_logits(graph_ops):
    """No exponential overflows; what is left of the precision is that of logits of several hundred."""
    check_softmax(
        graph_ops, graph_ops.edge_list("isolated"), change=lambda o: {**o, "query": 100 * o["query"]}, tolerance=1e-11
    )


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_of_any_shape(graph_ops, name):
    edges = graph_ops.from_lists([0, 0, 2], [2, 1, 0], 3)
    check_product(graph_ops, edges, {**PRODUCT, **PRODUCTS[name]})


@pytest.mark.parametrize("kind", GRAPHS)
def test_product_of_any_graph(graph_ops, kind):
    check_product(graph_ops, graph_ops.edge_list(kind))


def test_product_makes_no_weights(graph_ops):
    """Of attention times radial gain `[E, L2+1, K]`: what has an edge axis has the shape of an operand."""
    edges = graph_ops.edge_list("usual")
    o = product_operands(graph_ops, edges, {**PRODUCT, "lmax": 2}, 0)
    given, end = [t.to(DEVICE) for t in o.values()], ([i.to(DEVICE) for i in edges.tensors()], 1, True)
    with graph_ops.Shapes() as shapes:
        product.forward(*given, *end)
    of_edges = {shape for shape in shapes.found if edges.num_edges in shape and len(shape) > 1}
    assert of_edges <= {tuple(t.shape) for t in o.values()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_of_less_precision(graph_ops, dtype):
    check_product(graph_ops, graph_ops.edge_list("isolated"), dtype=dtype)


def attention_operands(graph_ops, edges, seed):
    o = product_operands(graph_ops, edges, PRODUCT, seed)
    o |= softmax_operands(graph_ops, edges, {**SOFTMAX, "heads": PRODUCT["heads"]}, seed)
    names = ("query", "key", "sink", "value", "radial_gain", "harmonics", "radial", "envelope")
    return {name: o[name] for name in names}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_attention(graph_ops, dtype):
    edges = graph_ops.edge_list("isolated")
    both = [attention_operands(graph_ops, edges, seed) for seed in (0, 1)]
    assert_all_agree(attention, attention_reference, *both, edges, 1, True, dtype=dtype)


def test_attention_through_dispatch_and_autograd(graph_ops, monkeypatch):
    """The public operator, with the backend opened to the CPU where kernels are interpreted."""
    op = "neighbor_attention"
    backend = Backend(op, "triton", attention.__name__, (DEVICE,))
    monkeypatch.setitem(dispatch._registry[op], "triton", backend)
    dispatch._choose.cache_clear()
    edges = graph_ops.on(graph_ops.from_lists([0, 0, 2], [2, 1, 0], 3), DEVICE)
    o = {name: t.to(DEVICE) for name, t in attention_operands(graph_ops, edges, 0).items()}

    def ladder_by(name):
        with dispatch.use_backend(name, op):
            return graph_ops.ladder(lambda **given: neighbor_attention(**given, graph=edges, lmax_out=1), o)

    graph_ops.assert_ladders_agree(ladder_by("triton"), ladder_by("reference"), 1e-12)
    monkeypatch.undo()
    dispatch._choose.cache_clear()


def assert_agree(kernels, reference, calls, dtype, tolerance):
    """Each function of `calls`, name -> (tensors, options), against the reference in float64."""
    for name, (tensors, options) in calls.items():
        given = [t.to(dtype) for t in tensors]
        wanted = getattr(reference, name)(*(t.double() for t in given), *options)
        found = getattr(kernels, name)(*(t.to(DEVICE) for t in given), *options)
        pairs = zip(*([x] if isinstance(x, torch.Tensor) else x for x in (found, wanted)), strict=True)
        for place, (a, b) in enumerate(pairs):
            where = f"{name}, result {place}"
            assert a.dtype == dtype, where
            assert a.shape == b.shape, where
            if b.numel():
                worst = (a.cpu().double() - b).abs().max().item()
                assert worst <= tolerance * max(1.0, b.abs().max().item()), f"{where}: off by {worst:.3g}"


def check_harmonics(vectors, lmax, normalize=True, normalization="component", dtype=torch.float64):
    random = torch.Generator().manual_seed(9)
    grad = torch.randn(len(vectors), (lmax + 1) ** 2, dtype=torch.float64, generator=random)
    step = torch.randn(len(vectors), 3, dtype=torch.float64, generator=random)
    options = (lmax, normalize, normalization)
    calls = {"forward": [vectors], "backward": [grad, vectors], "double_backward": [step, grad, vectors]}
    calls = {name: (tensors, options) for name, tensors in calls.items()}
    assert_agree(harmonics, harmonics_reference, calls, dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("lmax", range(9))
def test_harmonics_of_every_degree(lmax, normalize):
    """More vectors than a program has, one of them zero."""
    vectors = torch.randn(131, 3, dtype=torch.float64)
    vectors[5] = 0
    check_harmonics(vectors, lmax, normalize)


@pytest.mark.parametrize("normalization", ["integral", "norm"])
def test_harmonics_of_every_normalization(normalization):
    check_harmonics(torch.randn(4, 3, dtype=torch.float64), 3, True, normalization)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_harmonics_of_less_precision(dtype):
    unit = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    check_harmonics(unit, 4, dtype=dtype)


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_harmonics_of_vectors_whose_squares_leave_the_range(length):
    vectors = torch.randn(4, 3) * length
    found = harmonics.forward(vectors.to(DEVICE), 3, True, "component").cpu()
    wanted = harmonics_reference.forward(vectors.double(), 3, True, "component")
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)


def test_harmonics_of_no_vectors():
    check_harmonics(torch.zeros(0, 3, dtype=torch.float64), 2)


def radial_calls(lengths, n, p):
    """Both ladders, without and with the envelope."""
    step, envelope = torch.randn_like(lengths), torch.randn_like(lengths)
    grad = torch.randn(len(lengths), n, dtype=torch.float64)
    end = (5.0, p)
    return {
        "forward": ([lengths], (n, *end)),
        "backward": ([grad, lengths], end),
        "double_backward": ([step, grad, lengths], end),
        "forward_with_envelope": ([lengths], (n, *end)),
        "backward_with_envelope": ([grad, envelope, lengths], end),
        "double_backward_with_envelope": ([step, grad, envelope, lengths], end),
    }


@pytest.mark.parametrize(("n", "p"), [(8, 6), (5, 3), (1, 4), (20, 5)])
def test_radial_basis(n, p):
    """More lengths than a program has; zero, nearly zero, at the cutoff and beyond it."""
    lengths = torch.rand(1100, dtype=torch.float64) * 6
    lengths[:4] = torch.tensor([0.0, 1e-9, 1e-4, 5.0], dtype=torch.float64)
    calls = radial_calls(lengths, n, p)
    assert_agree(radial, radial_reference, calls, torch.float64, 5e-12)  # second derivatives cancel where k d is small


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_radial_basis_of_less_precision(dtype):
    calls = radial_calls(0.8 + 5 * torch.rand(40, dtype=torch.float64), 8, 6)
    assert_agree(radial, radial_reference, calls, dtype, 1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("count", [0, 7])
def test_geometry(count):
    vectors = torch.randn(count, 3, dtype=torch.float64) * 2
    step = torch.randn_like(vectors)
    grads = [torch.randn(count, *rest, dtype=torch.float64) for rest in ((9,), (8,), ())]
    options = (2, 5.0, 6)
    calls = {
        "forward": ([vectors], (2, 8, 5.0, 6)),
        "backward": ([*grads, vectors], options),
        "double_backward": ([step, *grads, vectors], options),
    }
    assert_agree(geometry, geometry_reference, calls, torch.float64, 1e-12)


@pytest.mark.parametrize("choice", tuning.CANDIDATES["edge_softmax"], ids=str)
def test_softmax_by_every_launch(graph_ops, choice):
    with tuning.use("edge_softmax", choice):
        shape = {**SOFTMAX, **SOFTMAXES["several blocks of heads"]}
        check_softmax(graph_ops, graph_ops.from_lists([0, 0, 2], [2, 1, 0], 3), shape)


@pytest.mark.parametrize("choice", tuning.CANDIDATES["neighbor_tensor_product"], ids=str)
def test_product_by_every_launch(graph_ops, choice):
    with tuning.use("neighbor_tensor_product", choice):
        shape = {**PRODUCT, "heads": 20, "channels": 40}
        check_product(graph_ops, graph_ops.from_lists([0, 0, 2], [2, 1, 0], 3), shape)


@pytest.mark.parametrize("op", tuning.CANDIDATES)
def test_what_the_tuner_times_runs(op, monkeypatch):
    for name, size in {"NEIGHBORS": 2, "HEADS": 2, "CHANNELS": 4, "LMAX": 1}.items():
        monkeypatch.setattr(tuning, name, size)
    for call in tuning._calls(op, torch.device(DEVICE), 2):
        found = call()
        for t in [found] if isinstance(found, torch.Tensor) else found:
            assert t.isfinite().all()
