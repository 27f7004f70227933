"""The tensor product operator: its formula, its derivative ladder, and what it refuses."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.dispatch import use_backend
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import MODES, TensorProductSpec, reference, tensor_product

F64 = torch.float64
OP = "tensor_product"  # `place` runs a test by each of its backends
by_every_backend = pytest.mark.usefixtures("place")

# (m1, m2, m3) that every mode allows, unequal wherever the mode lets them be
MULTIPLICITIES = {
    "uvw": (3, 2, 4),
    "uvu": (3, 2, 3),
    "uvv": (3, 2, 2),
    "uuw": (3, 3, 2),
    "uuu": (3, 3, 3),
    "uvuv": (3, 2, 6),
    "uvu<v": (3, 3, 3),
    "u<vw": (3, 3, 2),
}
UNWEIGHTED = [mode for mode in MODES if MODES[mode].weight_is_optional and mode != "uuw"]


def one_path(mode, has_weight=True, degrees=(1, 2, 1), multiplicities=None):
    m1, m2, m3 = multiplicities or MULTIPLICITIES[mode]
    l1, l2, l3 = degrees
    irreps = Irreps([(m1, (l1, 1))]), Irreps([(m2, (l2, 1))]), Irreps([(m3, (l3, 1))])
    return TensorProductSpec.of(*irreps, [(0, 0, 0, mode, has_weight, 0.7)])


def many_paths():
    """Every mode at once, with and without weights, two paths into one entry, an entry without paths, a zero entry."""
    in1, in2 = Irreps("2x0e+2x1o+0x1o+2x2e"), Irreps("2x1o+1x0e")
    out = Irreps("2x1o+3x0e+4x2e+2x1e+3x3o+1x1e+2x0o+2x2o")
    paths = [
        (0, 0, 0, "uvu", True, 0.5),
        (1, 1, 0, "uvu", False, 1.5),
        (1, 0, 1, "uvw", True, -0.3),
        (1, 0, 2, "uvuv", True, 0.9),
        (1, 0, 3, "uuu", False, 1.1),
        (2, 0, 3, "uvv", True, 1.0),
        (3, 0, 4, "u<vw", True, 2.0),
        (1, 0, 5, "uvu<v", False, 0.8),
        (3, 0, 0, "uuw", True, 0.6),
    ]
    return TensorProductSpec.of(in1, in2, out, paths)


def operands(spec, batch=3, shared=True, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()

    weight = draw(spec.weight_numel) if shared else draw(batch, spec.weight_numel)
    return draw(batch, spec.irreps_in1.dim), draw(batch, spec.irreps_in2.dim), weight


def by_loops(x, y, weight, spec):
    """The formula of `sdas_kernels.ops.tensor_product`, one scalar product at a time, differentiable by PyTorch."""
    out = [[0.0] * spec.irreps_out.dim for _ in x]
    for path, where in zip(spec.instructions, spec.weight_slices, strict=True):
        (m1, ir1), (m2, ir2), (m3, ir3) = spec.entries(path)
        coupling = path.path_weight * wigner_3j(ir1.l, ir2.l, ir3.l)
        starts = [
            irreps.slices()[i].start
            for irreps, i in (
                (spec.irreps_in1, path.i_in1),
                (spec.irreps_in2, path.i_in2),
                (spec.irreps_out, path.i_out),
            )
        ]
        mode, pairs = path.connection_mode, [(u, v) for u in range(m1) for v in range(m2)]
        if mode in ("uuu", "uuw"):
            pairs = [(u, v) for u, v in pairs if u == v]
        if "<" in mode:
            pairs = [(u, v) for u, v in pairs if u < v]
        for b in range(len(x)):
            flat = None if where is None else (weight if weight.ndim == 1 else weight[b])[where]
            for number, (u, v) in enumerate(pairs):
                ends = {"uvu": [u], "uvv": [v], "uuu": [u], "uvuv": [number], "uvu<v": [number]}.get(mode, range(m3))
                for w in ends:
                    factor = 1.0
                    if flat is not None:
                        wide = mode in ("uvw", "uuw", "u<vw")
                        factor = flat[number * m3 + w] if wide else flat[number]
                    a = x[b, starts[0] + u * ir1.dim : starts[0] + (u + 1) * ir1.dim]
                    c = y[b, starts[1] + v * ir2.dim : starts[1] + (v + 1) * ir2.dim]
                    product = factor * torch.einsum("ijk,i,j->k", coupling, a, c)
                    for k in range(ir3.dim):
                        out[b][starts[2] + w * ir3.dim + k] = out[b][starts[2] + w * ir3.dim + k] + product[k]
    rows = [torch.stack([torch.as_tensor(value, dtype=x.dtype) for value in row]) for row in out]
    return torch.stack(rows)


def ladder(function, x, y, weight, spec):
    """Value, first gradients, and the gradients of a scalar made of the first ones."""
    value = function(x, y, weight, spec)
    grad = torch.linspace(-1, 1, value.numel(), dtype=F64).reshape(value.shape).requires_grad_()
    inputs = [t for t in (x, y, weight) if t.numel()]
    first = torch.autograd.grad(value, inputs, grad, create_graph=True)
    scalar = sum((g.sin() * (i + 1)).sum() for i, g in enumerate(first))
    return [value, *first, *torch.autograd.grad(scalar, [*inputs, grad])]


def assert_same(ours, wanted):
    assert len(ours) == len(wanted)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@by_every_backend
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_its_formula(mode, shared):
    """Values, first and second derivatives by x, y, the weight and the incoming gradient, against plain loops."""
    spec = one_path(mode)
    inputs = operands(spec, shared=shared)
    assert_same(ladder(tensor_product, *inputs, spec), ladder(by_loops, *inputs, spec))


@by_every_backend
@pytest.mark.parametrize("mode", UNWEIGHTED)
def test_every_mode_without_a_weight_is_its_formula(mode):
    spec = one_path(mode, has_weight=False)
    x, y, weight = operands(spec)
    assert spec.weight_numel == 0
    assert_same(ladder(tensor_product, x, y, weight, spec), ladder(by_loops, x, y, weight, spec))
    assert torch.equal(tensor_product(x, y, None, spec), tensor_product(x, y, weight, spec))


@by_every_backend
@pytest.mark.parametrize("shared", [True, False])
def test_many_paths_at_once(shared):
    spec = many_paths()
    inputs = operands(spec, shared=shared)
    values = tensor_product(*inputs, spec)
    unreached = torch.cat([values[:, spec.irreps_out.slices()[i]] for i in (6, 7)], 1)
    assert not unreached.any()
    assert_same(ladder(tensor_product, *inputs, spec), ladder(by_loops, *inputs, spec))


@by_every_backend
@pytest.mark.parametrize("operand", [0, 1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck_and_gradgradcheck_of_each_operand_alone(shared, operand):
    spec = TensorProductSpec.of(
        Irreps("2x1o+1x0e"),
        Irreps("1x1o+1x0e"),
        Irreps("2x1o+1x0e+1x2e"),
        [
            (0, 1, 0, "uvu", True, 0.5),
            (0, 0, 1, "uvw", True, 1.5),
            (0, 0, 2, "uvw", True, 1.1),
            (1, 0, 0, "uvw", True, 1.0),
        ],
    )
    inputs = [t.detach() for t in operands(spec, batch=2, shared=shared)]
    moving = inputs[operand].requires_grad_()

    def function(t):
        return tensor_product(*inputs[:operand], t, *inputs[operand + 1 :], spec)

    assert torch.autograd.gradcheck(function, (moving,))
    # linear in each operand alone, so the interesting second derivatives are the mixed ones
    assert torch.autograd.gradgradcheck(function, (moving,))


@by_every_backend
@pytest.mark.parametrize("mode", MODES)
def test_gradgradcheck_of_all_operands(mode):
    degrees, multiplicities = (1, 1, 1), {"uvuv": (2, 1, 2), "uvu<v": (2, 2, 1)}.get(mode)
    multiplicities = multiplicities or {"uvv": (2, 1, 1), "uvu": (1, 2, 1), "uvw": (1, 2, 2)}.get(mode, (2, 2, 2))
    spec = one_path(mode, True, degrees, multiplicities)
    inputs = operands(spec, batch=1, shared=False)
    assert torch.autograd.gradcheck(lambda *t: tensor_product(*t, spec), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: tensor_product(*t, spec), inputs)


@by_every_backend
@pytest.mark.parametrize("shared", [True, False])
def test_opcheck(shared):
    ops, spec = torch.ops.sdas_kernels, many_paths()
    text = str(spec)
    x, y, weight = operands(spec, shared=shared)
    grad = torch.randn(3, spec.irreps_out.dim, dtype=F64, requires_grad=True)
    torch.library.opcheck(ops.tensor_product, (x, y, weight, text))
    torch.library.opcheck(ops.tensor_product_backward, (grad, x, y, weight, text, [True, True, True]))
    torch.library.opcheck(ops.tensor_product_backward, (grad, x, y.detach(), weight, text, [True, False, True]))
    plain = [t.detach() for t in (x, y, weight, grad, x, y, weight)]
    torch.library.opcheck(ops.tensor_product_double_backward, (*plain, text, [True] * 4))
    plain[1] = None
    torch.library.opcheck(ops.tensor_product_double_backward, (*plain, text, [True, False, True, True]))


@by_every_backend
def test_only_what_is_asked_for_is_computed():
    spec = one_path("uvw")
    x, y, weight = operands(spec)
    backward = torch.ops.sdas_kernels.tensor_product_backward
    grad = torch.ones(3, spec.irreps_out.dim, dtype=F64)
    by_x, by_y, by_weight = backward(grad, x, y, weight, str(spec), [False, True, False])
    assert by_x.numel() == by_weight.numel() == 0
    assert by_y.shape == y.shape


def test_second_derivatives_skip_what_no_gradient_reaches(monkeypatch):
    given = []

    def spy(*arguments):
        given.append([t is not None for t in arguments[:3]] + list(arguments[-1]))
        return double_backward(*arguments)

    double_backward = reference.double_backward
    monkeypatch.setattr(reference, "double_backward", spy)
    spec = one_path("uvw")
    x, y, weight = operands(spec)
    weight = weight.detach()
    with use_backend("reference", OP):
        by_x, _ = torch.autograd.grad(tensor_product(x, y, weight, spec).sum(), (x, y), create_graph=True)
        torch.autograd.grad(by_x.sum(), y)
    assert given == [[True, False, False, False, True, True, False]]


def test_specification_survives_its_string_and_pickling():
    spec = many_paths()
    odd = TensorProductSpec.of(Irreps("1e"), Irreps("1e"), Irreps("1e"), [(0, 0, 0, "uuu", False, 1 / 3 + 1e-16)])
    for s in (spec, odd, TensorProductSpec.of(Irreps(), Irreps("1e"), Irreps(), [])):
        assert TensorProductSpec.parse(str(s)) == s
        assert pickle.loads(pickle.dumps(s)) == s
        assert hash(TensorProductSpec.parse(str(s))) == hash(s)
    inputs = operands(spec)
    assert torch.equal(tensor_product(*inputs, str(spec)), tensor_product(*inputs, spec))


@by_every_backend
@pytest.mark.parametrize("shared", [True, False])
def test_empty_batch_and_empty_irreps(shared):
    for spec in (many_paths(), TensorProductSpec.of(Irreps("0x1o"), Irreps("0e"), Irreps("2x1o+0x0e"), [])):
        for batch in (0, 2):
            inputs = operands(spec, batch=batch, shared=shared)
            value = tensor_product(*inputs, spec)
            assert value.shape == (batch, spec.irreps_out.dim)
            first = torch.autograd.grad(value.sum(), inputs, create_graph=True)
            second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs)
            assert [g.shape for g in second] == [t.shape for t in inputs]


@by_every_backend
def test_strides_do_not_matter():
    spec = many_paths()
    x, y, weight = (t.detach() for t in operands(spec, batch=4, shared=False))
    wanted = tensor_product(x, y, weight, spec)
    assert torch.equal(tensor_product(x.T.contiguous().T, y, weight.T.contiguous().T, spec), wanted)
    assert torch.equal(tensor_product(x[::2], y[::2], weight[::2], spec), wanted[::2])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision(dtype, bound):
    spec = many_paths()
    x, y, weight = (t.detach().to(dtype) for t in operands(spec))
    value = tensor_product(x, y, weight, spec)
    assert value.dtype == dtype
    wanted = tensor_product(x.double(), y.double(), weight.double(), spec)
    assert (value.double() - wanted).abs().max() < bound * wanted.abs().max()


@by_every_backend
def test_repeats_bitwise():
    spec = many_paths()
    inputs = operands(spec, dtype=torch.float32)
    a, b = ([*torch.autograd.grad(tensor_product(*inputs, spec).sum(), inputs)] for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.ones(3, 8, dtype=F64)}, ValueError, r"x must be \[B, 9\], got \[3, 8\]"),
        ({"x": torch.ones(9, dtype=F64)}, ValueError, r"x must be \[B, 9\], got \[9\]"),
        ({"y": torch.ones(2, 10, dtype=F64)}, ValueError, r"y must be \[3, 10\], got \[2, 10\]"),
        ({"weight": torch.ones(5, dtype=F64)}, ValueError, r"weight must be \[24\] or \[3, 24\], got \[5\]"),
        ({"weight": torch.ones(2, 24, dtype=F64)}, ValueError, r"weight must be \[24\] or \[3, 24\], got \[2, 24\]"),
        ({"weight": None}, ValueError, "got None"),
        ({"y": torch.ones(3, 10)}, TypeError, "y is torch.float32 but x is torch.float64"),
        ({"y": torch.ones(3, 10, dtype=torch.int64)}, TypeError, "y must have a floating dtype"),
        ({"y": torch.ones(3, 10, dtype=F64, device="meta")}, ValueError, "y is on meta but x is on cpu"),
        ({"spec": 3}, TypeError, "spec must be a TensorProductSpec or its string"),
        ({"spec": "1x0e"}, ValueError, "not the string of a TensorProductSpec"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    spec = one_path("uvw")
    given = dict(zip(("x", "y", "weight"), operands(spec), strict=True), spec=spec)
    with pytest.raises(error, match=words):
        tensor_product(**{**given, **change})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((0, 0, 0, "uvq", True, 1.0), "connection mode 'uvq'"),
        ((0, 0, 3, "uvw", True, 1.0), "i_out = 3 is out of range"),
        ((-1, 0, 0, "uvw", True, 1.0), "i_in1 = -1 is out of range"),
        ((0, 0, 1, "uvw", True, 1.0), "breaks"),
        ((0, 0, 2, "uvw", True, 1.0), "breaks"),
        ((0, 0, 0, "uvu", True, 1.0), "must obey m3 = m1"),
        ((0, 0, 0, "uuu", True, 1.0), "must obey m1 = m2 = m3"),
        ((0, 0, 0, "uvw", False, 1.0), "needs a weight"),
    ],
)
def test_wrong_paths_are_refused(path, words):
    with pytest.raises(ValueError, match=words):
        TensorProductSpec.of(Irreps("3x1o"), Irreps("2x1o"), Irreps("1x0e+1x1o+1x3e"), [path])


def test_degrees_beyond_the_table_are_refused():
    with pytest.raises(ValueError, match="degrees go up to 8"):
        TensorProductSpec.of(Irreps("9o"), Irreps("0e"), Irreps("9o"), [(0, 0, 0, "uuu", False, 1.0)])


@by_every_backend
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("form", [TensorProductSpec, str])
def test_compiles_once_for_all_batch_sizes(form, shared):
    spec = many_paths()
    given = str(spec) if form is str else spec
    torch._dynamo.reset()  # else it counts the compilations of the cases before this one
    counter = CompileCounterWithBackend("aot_eager")

    def function(x, y, weight):
        return tensor_product(x * 2, y, weight, given).pow(2).sum()

    compiled = torch.compile(function, backend=counter, fullgraph=True)
    for batch in (4, 5, 7, 12):
        inputs = operands(spec, batch, shared)
        ours, wanted = (torch.autograd.grad(f(*inputs), inputs) for f in (compiled, function))
        assert_same(ours, wanted)
    assert counter.frame_count <= 2, "one graph for the first size, one for every other"


@by_every_backend
def test_survives_export():
    spec = many_paths()

    class Product(torch.nn.Module):
        def forward(self, x, y, weight):
            return tensor_product(x, y, weight, spec)

    inputs = tuple(t.detach() for t in operands(spec))
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(Product(), inputs, dynamic_shapes=({0: batch}, {0: batch}, None))
    other = tuple(t.detach() for t in operands(spec, batch=5))
    assert torch.equal(exported.module()(*other), tensor_product(*other, spec))
