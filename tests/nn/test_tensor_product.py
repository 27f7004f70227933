"""Tensor product modules against e3nn's: values, derivatives, normalizations, weights, state dicts."""

from __future__ import annotations

import copy
import itertools
import random

import pytest
import torch
from e3nn import o3

from sdas_kernels import nn
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import MODES

F64 = torch.float64
FITTING = {  # output multiplicity that a mode wants, None for a free one, for input multiplicities that it takes
    "uvw": lambda m1, m2: None,
    "uvu": lambda m1, m2: m1,
    "uvv": lambda m1, m2: m2,
    "uuw": lambda m1, m2: None,
    "uuu": lambda m1, m2: m1,
    "uvuv": lambda m1, m2: m1 * m2,
    "uvu<v": lambda m1, m2: m1 * (m1 - 1) // 2,
    "u<vw": lambda m1, m2: None,
}


pytestmark = pytest.mark.usefixtures("float64_by_default")


def random_product(seed, modes=tuple(MODES), lmax=2):
    """Random irreps, and paths of random modes with and without weights between them."""
    rng = random.Random(seed)
    irreps = [(rng.randint(1, 4), (rng.randint(0, lmax), rng.choice([1, -1]))) for _ in range(6)]
    in1, in2, out, paths = irreps[:3], irreps[3:], [], []
    for (i, (m1, ir1)), (j, (m2, ir2)) in itertools.product(enumerate(in1), enumerate(in2)):
        for ir in o3.Irrep(ir1) * o3.Irrep(ir2):
            mode = rng.choice(modes)
            if (("uu" in mode or "<" in mode) and m1 != m2) or ir.l > lmax:
                continue
            m3 = FITTING[mode](m1, m2)
            m3 = rng.randint(1, 4) if m3 is None else m3
            if m3 == 0:
                continue
            has_weight = not MODES[mode].weight_is_optional or rng.random() < 0.7 or mode == "uuw"
            alike = [k for k, entry in enumerate(out) if entry == (m3, ir)]
            if not alike or rng.random() < 0.5:
                out.append((m3, ir))
                alike = [len(out) - 1]
            paths.append((i, j, alike[-1], mode, has_weight, rng.uniform(0.3, 2)))
    return in1, in2, out, paths, rng


def ladder(module, x, y, weight):
    """Value, first derivatives, and the derivatives of a scalar made of them."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    inputs = [x, y]
    if weight is not None:
        weight = weight.clone().requires_grad_()
        inputs.append(weight)
    value = module(x, y, weight)
    inputs += [p for p in module.parameters() if weight is None]
    first = torch.autograd.grad(value.sin().sum(), inputs, create_graph=True)
    return [value, *first, *torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs)]


def assert_same(ours, wanted, tolerance=1e-12):
    for a, b in zip(ours, wanted, strict=True):
        scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
        torch.testing.assert_close(a / scale, b / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_random_products_are_e3nns(seed, shared):
    """Every mode, unequal multiplicities, normalizations and variances at random; first and second derivatives."""
    in1, in2, out, paths, rng = random_product(seed)
    options = {
        "irrep_normalization": rng.choice(["component", "norm", "none", None]),
        "path_normalization": rng.choice(["element", "path", "none", None]),
        "in1_var": [rng.uniform(0.5, 2) for _ in in1],
        "in2_var": torch.tensor([rng.uniform(0.5, 2) for _ in in2]),
        "out_var": [rng.uniform(0.5, 2) for _ in out],
        "shared_weights": shared,
        "internal_weights": False,
    }
    theirs = o3.TensorProduct(in1, in2, out, paths, **options)
    ours = nn.TensorProduct(in1, in2, out, paths, **options)
    assert ours.weight_numel == theirs.weight_numel
    assert torch.equal(ours.output_mask, theirs.output_mask)
    for a, b in zip(ours.instructions, theirs.instructions, strict=True):
        assert a[:5] == b[:5]
        assert a.path_shape == b.path_shape
        assert a.path_weight == pytest.approx(b.path_weight, rel=1e-15)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, theirs.irreps_in1.dim, generator=generator)
    y = torch.randn(3, theirs.irreps_in2.dim, generator=generator)
    weight = torch.randn(*([] if shared else [3]), theirs.weight_numel, generator=generator)
    assert_same(ladder(ours, x, y, weight), ladder(theirs, x, y, weight))


def test_the_random_products_reach_every_mode():
    reached = {path[3:5] for seed in range(12) for path in random_product(seed)[3]}
    wanted = {(mode, True) for mode in MODES} | {
        (m, False) for m in MODES if MODES[m].weight_is_optional and m != "uuw"
    }
    assert reached == wanted


@pytest.mark.parametrize("path_normalization", ["element", "path", "none"])
@pytest.mark.parametrize("irrep_normalization", ["component", "norm", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_normalizations_of_every_mode(mode, irrep_normalization, path_normalization):
    """The factor of a path of each mode, alone and beside another path into the same output."""
    m1, m2 = (4, 4) if "uu" in mode or "<" in mode else (4, 3)
    m3 = FITTING[mode](m1, m2) or 5
    irreps = [(m1, (1, -1)), (2, (2, -1))], [(m2, (2, 1))], [(m3, (2, -1))]
    path, beside = (0, 0, 0, mode, True, 1.7), (1, 0, 0, "uvw", True, 0.6)
    for paths in ([path], [path, beside]):
        options = {"irrep_normalization": irrep_normalization, "path_normalization": path_normalization}
        theirs, ours = (
            lib(*irreps, paths, [1.3, 0.4], [0.7], [1.9], **options) for lib in (o3.TensorProduct, nn.TensorProduct)
        )
        wanted = [instruction.path_weight for instruction in theirs.instructions]
        assert [instruction.path_weight for instruction in ours.instructions] == pytest.approx(wanted, rel=1e-15)


@pytest.mark.parametrize("path_normalization", ["element", "path", "none"])
@pytest.mark.parametrize("irrep_normalization", ["component", "norm", "none"])
def test_normalizations_of_fully_connected_products(irrep_normalization, path_normalization):
    irreps = "3x0e+2x1o+1x2e+0x5e", "2x0e+1x1o+1x1e", "4x0e+1x1o+2x1e+2x2e+0x3o+1x2o+2x6o"
    theirs = o3.FullyConnectedTensorProduct(*irreps, irrep_normalization, path_normalization)
    ours = nn.FullyConnectedTensorProduct(*irreps, irrep_normalization, path_normalization)
    assert torch.equal(ours.output_mask, theirs.output_mask)
    assert not ours.output_mask[-26:].any(), "6o comes of 0x5e alone"
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, y = theirs.irreps_in1.randn(4, -1), theirs.irreps_in2.randn(4, -1)
    assert_same(ladder(ours, x, y, None), ladder(theirs, x, y, None))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("FullTensorProduct", ("2x0e+3x1o", "1x1o+2x1e+1x0o")),
        ("FullTensorProduct", ("2x0e+3x1o", "1x1o+2x1e", ["1o", "0e"])),
        ("ElementwiseTensorProduct", ("5x1o+5x1e", "10x1e")),
        ("ElementwiseTensorProduct", ("3x0e+4x1o+1x2e", "2x1o+6x0o", ["1o", "2o", "1e"])),
        ("ElementwiseTensorProduct", ("2x1o+3x1o", "4x2e+1x0e", None, "norm")),
    ],
)
def test_products_without_weights(name, arguments):
    theirs, ours = getattr(o3, name)(*arguments), getattr(nn, name)(*arguments)
    assert str(ours.irreps_out) == str(theirs.irreps_out)
    x, y = theirs.irreps_in1.randn(3, -1), theirs.irreps_in2.randn(3, -1)
    assert_same([ours(x, y)], [theirs(x, y)])


def test_elementwise_product_needs_as_many_irreps():
    with pytest.raises(ValueError, match="different numbers of irreps"):
        nn.ElementwiseTensorProduct("3x1o", "2x1o")


def test_state_dict_of_a_larger_e3nn_module_loads():
    irreps = "2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o+1x2e"
    theirs = torch.nn.ModuleDict({"a": o3.FullyConnectedTensorProduct(*irreps), "b": torch.nn.Linear(1, 1)})
    ours = torch.nn.ModuleDict({"a": nn.FullyConnectedTensorProduct(*irreps), "b": torch.nn.Linear(1, 1)})
    state = theirs.state_dict()
    assert any("_compiled_main" in key for key in state)
    before = dict(state)
    ours.load_state_dict(state, strict=True)
    assert state.keys() == before.keys(), "the caller's dict is left alone"
    assert torch.equal(ours["a"].weight, theirs["a"].weight)
    assert set(ours["a"].state_dict()) == {"weight", "output_mask"}
    with pytest.raises(RuntimeError, match="Unexpected key"):
        ours.load_state_dict({**ours.state_dict(), "a.other": torch.ones(1)})


@pytest.mark.parametrize("shared", [True, False])
def test_leading_axes_broadcast_as_in_e3nn(shared):
    paths = [(0, 0, 0, "uvu", True), (0, 0, 1, "uvw", True)]
    arguments = ("2x1o", "2x1o", "2x0e+3x1e", paths)
    theirs = o3.TensorProduct(*arguments, shared_weights=shared, internal_weights=False)
    ours = nn.TensorProduct(*arguments, shared_weights=shared, internal_weights=False)
    x, y = torch.randn(4, 1, 6), torch.randn(5, 6)
    weight = torch.randn(ours.weight_numel) if shared else torch.randn(4, 1, ours.weight_numel)
    assert ours(x, y, weight).shape == (4, 5, 11)
    assert_same([ours(x, y, weight)], [theirs(x, y, weight)])
    assert_same(
        [ours(x[0, 0], y[0], weight if shared else weight[:1, 0])],
        [theirs(x[0, 0], y[0], weight if shared else weight[:1, 0])],
    )


def test_weights_may_come_as_a_list():
    paths = [(0, 0, 0, "uvu", True), (0, 0, 1, "uuw", False), (0, 0, 2, "uvw", True)]
    ours = nn.TensorProduct("2x1o", "2x1o", "2x0e+1x1e+3x2e", paths, internal_weights=False)
    x, y, flat = torch.randn(4, 6), torch.randn(4, 6), torch.randn(ours.weight_numel)
    assert torch.equal(ours(x, y, list(ours.weight_views(flat))), ours(x, y, flat))
    views = list(ours.weight_views(flat, yield_instruction=True))
    assert [number for number, _, _ in views] == [0, 2]
    assert [tuple(view.shape) for _, _, view in views] == [(2, 2), (2, 2, 3)]
    assert torch.equal(ours.weight_view_for_instruction(2, flat).flatten(), flat[4:])
    with pytest.raises(ValueError, match="instruction 1 has no weight"):
        ours.weight_view_for_instruction(1, flat)


def test_internal_weights_are_views_that_can_be_set():
    ours = nn.FullyConnectedTensorProduct("2x1o", "1x1o", "3x0e+1x2e")
    with torch.no_grad():
        for view in ours.weight_views():
            view.fill_(2.0)
    assert torch.equal(ours.weight, torch.full((8,), 2.0))


@pytest.mark.parametrize(
    ("shared", "internal", "parameter"),
    [(None, None, True), (True, None, True), (False, None, False), (None, False, False), (True, True, True)],
)
def test_who_holds_the_weight(shared, internal, parameter):
    arguments = ("2x1o", "1x1o", "2x0e", [(0, 0, 0, "uvu", True)])
    ours = nn.TensorProduct(*arguments, shared_weights=shared, internal_weights=internal)
    theirs = o3.TensorProduct(*arguments, shared_weights=shared, internal_weights=internal)
    for module in (ours, theirs):
        assert isinstance(module.weight, torch.nn.Parameter) == parameter
        assert module.weight.numel() == (2 if parameter else 0)
    assert (ours.shared_weights, ours.internal_weights) == (theirs.shared_weights, theirs.internal_weights)


def test_initial_weight_is_e3nns():
    torch.manual_seed(3)
    theirs = o3.FullyConnectedTensorProduct("2x1o", "1x1o", "3x0e")
    torch.manual_seed(3)
    assert torch.equal(nn.FullyConnectedTensorProduct("2x1o", "1x1o", "3x0e").weight, theirs.weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"internal_weights": True, "shared_weights": False}, "needs shared_weights=True"),
        ({"irrep_normalization": "sphere"}, "irrep_normalization 'sphere'"),
        ({"path_normalization": "sum"}, "path_normalization 'sum'"),
        ({"in1_var": [1.0, 2.0]}, "in1_var has 2 values for 1 entries"),
    ],
)
def test_contradicting_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        nn.TensorProduct("2x1o", "1x1o", "2x0e", [(0, 0, 0, "uvu", True)], **options)


def test_wrong_weights_are_refused():
    x, y = torch.randn(3, 6), torch.randn(3, 3)
    arguments = ("2x1o", "1x1o", "2x0e", [(0, 0, 0, "uvu", True)])
    with pytest.raises(ValueError, match="weight is missing"):
        nn.TensorProduct(*arguments, internal_weights=False)(x, y)
    with pytest.raises(ValueError, match=r"weight must be \[2\], got \[3, 2\]"):
        nn.TensorProduct(*arguments)(x, y, torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"weight must be \[\.\., 2\], got \[2\]"):
        nn.TensorProduct(*arguments, shared_weights=False)(x, y, torch.ones(2))


def test_arguments_of_e3nns_code_generator_change_nothing():
    arguments = ("2x1o", "1x1o", "2x0e", [(0, 0, 0, "uvu", False)])
    x, y = torch.randn(3, 6), torch.randn(3, 3)
    other = nn.TensorProduct(
        *arguments, compile_left_right=False, compile_right=True, _specialized_code=False, _optimize_einsums=False
    )
    assert torch.equal(nn.TensorProduct(*arguments)(x, y), other(x, y))
    norm = nn.TensorProduct(*arguments, normalization="norm")
    assert torch.equal(norm(x, y), nn.TensorProduct(*arguments, irrep_normalization="norm")(x, y))


def test_rotating_the_inputs_rotates_the_output():
    module = nn.FullyConnectedTensorProduct("2x0e+2x1o+1x2e", "1x1o+1x2e", "2x0e+2x1o+1x1e+1x2o+1x3o")
    rotation = -o3.rand_matrix()
    d1, d2, d3 = (
        o3.Irreps(i).D_from_matrix(rotation) for i in (module.irreps_in1, module.irreps_in2, module.irreps_out)
    )
    x, y = torch.randn(3, module.irreps_in1.dim), torch.randn(3, module.irreps_in2.dim)
    assert_same([module(x @ d1.T, y @ d2.T)], [module(x, y) @ d3.T], 1e-10)


def test_copies_and_compiles():
    module = nn.FullyConnectedTensorProduct("2x0e+1x1o", "1x1o", "2x1o+1x0e")
    x, y = torch.randn(3, 5), torch.randn(3, 3)
    assert torch.equal(copy.deepcopy(module)(x, y), module(x, y))
    assert isinstance(module.irreps_in1, Irreps)
    assert "2x0e+1x1o x 1x1o -> 2x1o+1x0e" in repr(module)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    assert_same(ladder_first(compiled, x, y), ladder_first(module, x, y))


def ladder_first(module, x, y):
    x = x.clone().requires_grad_()
    return [module(x, y), *torch.autograd.grad(module(x, y).sin().sum(), x)]
