"""Inputs at the edges: where e3nn gives a result ours is the same; where e3nn fails, ours is right or says why not."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels import nn

o3 = pytest.importorskip("e3nn.o3")
F64 = torch.float64


pytestmark = pytest.mark.usefixtures("float64_by_default")


PRODUCTS = {
    "scalars": ("3x0e", "2x0e", "4x0e"),
    "pseudoscalars": ("2x0o", "3x0o", "1x0e+2x0e"),
    "zero multiplicity in": ("0x1o+2x0e", "1x0e+1x1o", "2x1o+1x0e"),
    "zero multiplicity out": ("2x1o", "1x1o", "0x0e+1x1e+0x2e"),
    "zero multiplicity alone": ("0x1o", "1x1o", "1x0e+1x1e"),
    "an entry without paths": ("2x0e", "1x0e", "2x0e+3x4o"),
    "no paths": ("2x0e", "1x1o", "3x2e"),
    "one entry twice": ("1x1o+1x1o", "1x1o", "1x0e+2x0e+1x0e"),
}


@pytest.mark.parametrize("rows", [(0,), (3,), (2, 0), (2, 3), ()], ids=str)
@pytest.mark.parametrize("irreps", PRODUCTS.values(), ids=PRODUCTS)
def test_fully_connected_products(irreps, rows):
    theirs, ours = o3.FullyConnectedTensorProduct(*irreps), nn.FullyConnectedTensorProduct(*irreps)
    ours.load_state_dict(theirs.state_dict())
    x, y = (torch.randn(*rows, side.dim, requires_grad=True) for side in (theirs.irreps_in1, theirs.irreps_in2))
    found = ours(x, y)
    assert found.shape == (*rows, theirs.irreps_out.dim)
    torch.testing.assert_close(found, theirs(x, y))
    if theirs(x, y).requires_grad and found.numel():
        inputs = [t for t in (x, y) if t.numel()]
        for a, b in zip(*(torch.autograd.grad(f.sum(), inputs, allow_unused=True) for f in (found, theirs(x, y))),
                        strict=True):  # fmt: skip
            torch.testing.assert_close(torch.zeros_like(a) if b is None else b, a)


@pytest.mark.parametrize("rows", [(0,), (3,)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", ["uvu", "uvv", "uuu", "uvuv"])
def test_zero_rows_and_zero_multiplicity_of_every_mode(mode, shared, rows):
    irreps = {"uvu": ("0x1o+2x1o", "0x1o+3x0e", "0x0e+2x1o"), "uvv": ("0x1o+2x1o", "0x1o+3x0e", "0x0e+3x1o")}.get(
        mode, ("0x1o+2x1o", "0x1o+2x0e", "0x0e+" + ("4x1o" if mode == "uvuv" else "2x1o"))
    )
    paths = [(0, 0, 0, mode, True), (1, 1, 1, mode, True)]
    options = {"shared_weights": shared, "internal_weights": False}
    theirs, ours = o3.TensorProduct(*irreps, paths, **options), nn.TensorProduct(*irreps, paths, **options)
    weight = torch.randn(*(() if shared else rows), theirs.weight_numel)
    x, y = torch.randn(*rows, theirs.irreps_in1.dim), torch.randn(*rows, theirs.irreps_in2.dim)
    torch.testing.assert_close(ours(x, y, weight), theirs(x, y, weight))


def test_one_sample_and_many_broadcast():
    theirs, ours = o3.FullTensorProduct("2x1o", "1x1o"), nn.FullTensorProduct("2x1o", "1x1o")
    x, y = torch.randn(4, 1, 6), torch.randn(5, 3)
    torch.testing.assert_close(ours(x, y), theirs(x, y))


@pytest.mark.parametrize(("x", "y"), [((3, 5), (3, 3)), ((3, 6), (3, 4)), ((3, 6), (2, 3))])
def test_wrong_shapes_are_errors_in_both(x, y):
    for library in (o3, nn):
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            library.FullTensorProduct("2x1o", "1x1o")(torch.randn(x), torch.randn(y))


def test_missing_and_wrong_weights_are_errors_in_both():
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    for library, missing in ((o3, RuntimeError), (nn, ValueError)):
        module = library.FullyConnectedTensorProduct("1o", "1o", "0e", internal_weights=False)
        with pytest.raises(missing):
            module(x, y)
        with pytest.raises((AssertionError, ValueError)):
            module(x, y, torch.randn(2))


@pytest.mark.parametrize("normalization", ["integral", "component", "norm"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rows", [(0,), (2, 0), (), (3,)], ids=str)
@pytest.mark.parametrize("wanted", [[0], [3], [2, 0, 2], "0e+1o"], ids=str)
def test_harmonics(wanted, rows, normalize, normalization):
    x = torch.randn(*rows, 3)
    theirs, ours = (library.SphericalHarmonics(wanted, normalize, normalization) for library in (o3, nn))
    assert str(ours.irreps_out) == str(theirs.irreps_out)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("normalize", [True, False])
def test_harmonics_of_the_zero_vector(normalize):
    x = torch.zeros(2, 3)
    theirs, ours = (library.SphericalHarmonics([0, 1, 2, 3], normalize) for library in (o3, nn))
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_gradient_at_the_zero_vector_is_finite_unlike_e3nns_which_is_huge():
    """e3nn divides by its smallest length of 1e-12 there; ours is zero, as the direction is undefined."""
    slopes = []
    for library in (o3, nn):
        x = torch.zeros(1, 3, requires_grad=True)
        (slope,) = torch.autograd.grad(library.SphericalHarmonics([1], True)(x).sum(), x)
        slopes.append(slope.abs().max().item())
    assert slopes[0] > 1e10
    assert slopes[1] == 0
