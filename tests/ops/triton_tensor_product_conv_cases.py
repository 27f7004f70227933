"""The convolution's Triton kernels against the reference in float64, run as `triton_cases.py` is."""

from __future__ import annotations

import os
import random

import pytest
import torch

from sdas_kernels import dispatch
from sdas_kernels.dispatch import Backend
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product import pieces as product_pieces
from sdas_kernels.ops.tensor_product_conv import pieces, reference, tensor_product_conv
from sdas_kernels.ops.tensor_product_conv import triton as kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("NEITHER INTERPRETED NOR ON A GPU: set TRITON_INTERPRET=1", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("interpreter_bounds_loops", "unwritten_memory_is_nan")
GRAPHS = ("usual", "no edges", "one atom", "images", "isolated", "duplicates", "one-way")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
OP = "tensor_product_conv"


def spec_of(in1, in2, out, paths):
    factors = [(*path, *(("uvu", True)[len(path) - 3 :]), 0.4 + 0.1 * n) for n, path in enumerate(paths)]
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), factors)


def apart(channels):
    """Each path has an entry of its own."""
    in1, out = f"{channels}x0e+{channels}x1o", "+".join(f"{channels}x{ir}" for ir in ("0e", "1o", "1o", "1e"))
    return spec_of(in1, "1x0e+1x1o", out, [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)])


USUAL = apart(3)
SPECS = {
    **{f"{channels} channels": apart(channels) for channels in (1, 5, 33)},
    "added": spec_of("3x0e+3x1o", "1x0e+1x1o", "3x0e+3x1o", [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]),
    "unequal multiplicities": spec_of("40x0e+5x1o", "1x1o+1x0e", "40x1o+5x1e+5x1o", [(0, 0, 0), (1, 0, 1), (1, 1, 2)]),
    "several v": spec_of("3x1o+2x0e", "2x1o+3x0e", "3x2e+3x1o+2x1o", [(0, 0, 0), (0, 1, 1), (1, 0, 2)]),
    "degree 3": spec_of("2x3o+2x1o", "1x2e+1x3o", "2x1o+2x3o+2x2e", [(0, 0, 0), (1, 0, 1), (0, 1, 2), (1, 1, 2)]),
    "single": spec_of("1x1o", "1x1o", "1x0e+1x1e", [(0, 0, 0, "uuu", True), (0, 0, 1, "uvw", True)]),
    "some without a weight": spec_of("3x1o", "2x1o", "3x0e+3x2e", [(0, 0, 0, "uvu", False), (0, 0, 1)]),
    "none with a weight": spec_of("3x1o", "1x1o", "3x0e", [(0, 0, 0, "uvu", False)]),
    "out of reach": spec_of("3x1o+2x2e", "1x1o+1x3o", "2x0e+3x0e+4x1o", [(0, 0, 1)]),
    "no paths": spec_of("3x1o", "1x1o", "3x0e", []),
    "no channels": spec_of("0x1o+2x0e", "1x1o", "0x0e+2x1o", [(0, 0, 0), (1, 0, 1)]),
    "a mode that mixes channels": spec_of("2x1o", "1x1o", "2x0e+3x2e", [(0, 0, 0), (0, 0, 1, "uvw", True)]),
}


def operands(edges, spec, dtype=torch.float64, shared=False):
    """Steps by x, y and the weight; gradient; x, y, weight."""
    generator = torch.Generator().manual_seed(2)
    weight = (spec.weight_numel,) if shared else (edges.num_edges, spec.weight_numel)
    shapes = (edges.num_nodes, spec.dims[0]), (edges.num_edges, spec.dims[1]), weight
    shapes = (*shapes, (edges.num_nodes, spec.dims[2]), *shapes)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, spec, given, edges, device, first, second, steps):
    given, index = [t.to(device) for t in given], [t.to(device) for t in edges.tensors()]
    chosen = [t if wanted else None for t, wanted in zip(given[:3], steps, strict=True)]
    end = index, spec.text
    found = [
        module.forward(*given[4:], *end),
        *module.backward(*given[3:], *end, first),
        *module.double_backward(*chosen, *given[3:], *end, second),
    ]
    return [t.cpu() for t in found]


def check(
    edges, spec, dtype=torch.float64, shared=False, first=(True,) * 3, second=(True,) * 4, steps=(True,) * 3
):  # fmt: skip
    given, asked = operands(edges, spec, dtype, shared), (first, second, steps)
    wanted = ladder(reference, spec, [t.double() for t in given], edges, "cpu", *asked)
    found = ladder(kernels, spec, given, edges, DEVICE, *asked)
    again = found if INTERPRETED else ladder(kernels, spec, given, edges, DEVICE, *asked)
    for n, (a, b, c) in enumerate(zip(found, wanted, again, strict=True)):
        assert a.shape == b.shape, f"result {n}"
        assert a.dtype == dtype
        assert torch.equal(a, c), f"result {n}: not repeatable"
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            assert worst <= TOLERANCE[dtype] * max(1.0, b.abs().max().item()), f"result {n}: off by {worst:.3g}"


@pytest.mark.parametrize("name", SPECS)
def test_convolution_of_any_specification(graph_ops, name):
    check(graph_ops.edge_list("isolated"), SPECS[name])


@pytest.mark.parametrize("kind", GRAPHS)
def test_convolution_of_any_graph(graph_ops, kind):
    check(graph_ops.edge_list(kind), USUAL)


def test_convolution_of_more_edges_than_a_program_has_at_a_time(graph_ops):
    """Of one channel a program has 32 edges at a time; an atom has 80 here."""
    check(graph_ops.from_lists([1] * 80 + [2], [n % 3 for n in range(80)] + [1], 3), SPECS["1 channels"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_convolution_of_less_precision(graph_ops, dtype):
    check(graph_ops.edge_list("isolated"), USUAL, dtype)


def test_convolution_of_a_shared_weight(graph_ops):
    """Edge by edge."""
    check(graph_ops.edge_list("isolated"), USUAL, shared=True)


@pytest.mark.parametrize("seed", range(6))
def test_convolution_gives_what_is_asked_for(graph_ops, seed):
    rng = random.Random(seed)
    asked = [[rng.random() < 0.5 for _ in range(count)] for count in (3, 4, 3)]
    check(graph_ops.edge_list("usual"), USUAL, torch.float64, False, *asked)


@pytest.fixture
def few_registers(monkeypatch):
    """Each path is a piece, in several launches."""
    monkeypatch.setattr(pieces, "BUDGET_F64", 1)
    monkeypatch.setattr(product_pieces, "TERMS", 8)
    pieces.pieces.cache_clear()
    yield
    pieces.pieces.cache_clear()


@pytest.mark.usefixtures("few_registers")
@pytest.mark.parametrize("name", ["added", "several v", "out of reach"])
def test_convolution_in_pieces_that_share_operands_and_results(graph_ops, name):
    check(graph_ops.edge_list("isolated"), SPECS[name])


def test_convolution_makes_no_features_of_edges(graph_ops):
    """What has an edge axis is y, the weight, their gradients or parts of them."""
    edges = graph_ops.edge_list("usual")
    given, (_, dim2, _) = operands(edges, USUAL), USUAL.dims
    with graph_ops.Shapes() as shapes:
        ladder(kernels, USUAL, given, edges, DEVICE, (True,) * 3, (True,) * 4, (True, False, True))
    of_edges = {shape for shape in shapes.found if edges.num_edges in shape[:-1]}
    assert of_edges
    assert {shape[-1] for shape in of_edges} <= {dim2, USUAL.weight_numel}


@pytest.mark.parametrize("basis", [False, True])
def test_convolution_through_dispatch_and_autograd(graph_ops, monkeypatch, basis):
    """The public operator, each gradient and each of its gradients by itself, with the backend opened to the CPU."""
    monkeypatch.setitem(dispatch._registry[OP], "triton", Backend(OP, "triton", kernels.__name__, (DEVICE,)))
    dispatch._choose.cache_clear()
    edges = graph_ops.on(graph_ops.edge_list("isolated"), DEVICE)
    n, e, (dim1, dim2, _) = edges.num_nodes, edges.num_edges, USUAL.dims
    shapes = {"x": (n, dim1), "y": (e, dim2), "weight": (e, 4 if basis else USUAL.weight_numel)}
    shapes |= {"weight_basis": (4, USUAL.weight_numel)} if basis else {}
    o = graph_ops.normal(0, DEVICE, torch.float64, **shapes)

    def ladder_by(name):
        with dispatch.use_backend(name, OP):
            return graph_ops.ladder(lambda **given: tensor_product_conv(**given, graph=edges, spec=USUAL), o)

    graph_ops.assert_ladders_agree(ladder_by("triton"), ladder_by("reference"), 1e-12)
    monkeypatch.undo()
    dispatch._choose.cache_clear()
