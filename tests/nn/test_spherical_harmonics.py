"""The spherical harmonics module against e3nn's."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from sdas_kernels.irreps import Irrep
from sdas_kernels.nn import SphericalHarmonics

F64 = torch.float64
OUTPUTS = ["1o+0e+2e+3o", "2x1e+0e+2e", [0, 1, 2], [2, 2, 0], [4, 1, 2], 3, 0, o3.Irreps("0e+1o"), "2x8e", "1e", "2e"]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("wanted", OUTPUTS, ids=str)
def test_is_e3nns(wanted, normalize):
    x = torch.randn(3, 4, 3, dtype=F64)
    for options in ({}, {"normalization": "component"}, {"normalization": "norm"}):
        ours, theirs = (m(wanted, normalize, **options) for m in (SphericalHarmonics, o3.SphericalHarmonics))
        assert str(ours.irreps_out) == str(theirs.irreps_out)
        assert str(ours.irreps_in) == str(theirs.irreps_in)
        results = []
        for module in (ours, theirs):
            v = x.clone().requires_grad_()
            values = module(v)
            scalar = values.sin().sum() + 0 * v.sum()  # e3nn's degree 0 does not depend on v
            results.append((values, torch.autograd.grad(scalar, v)[0]))
        for a, b in zip(*results, strict=True):
            scale = max(1.0, b.abs().max().item())
            torch.testing.assert_close(a / scale, b / scale, rtol=1e-11, atol=1e-11)


def test_one_irrep_and_a_range_are_understood():
    x = torch.randn(5, 3, dtype=F64)
    assert torch.equal(SphericalHarmonics(Irrep("2e"), True)(x), SphericalHarmonics("2e", True)(x))
    assert torch.equal(SphericalHarmonics(o3.Irrep("2e"), True)(x), SphericalHarmonics(2, True)(x))
    assert torch.equal(SphericalHarmonics(range(4), True)(x), SphericalHarmonics("0e+1o+2e+3o", True)(x))


def test_has_no_state():
    assert not SphericalHarmonics("1o", True).state_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("1o+2o", True), "irreps_out has 2o"),
        (("1e", True, "integral", "1o"), "irreps_out has 1e"),
        (("1o", True, "integral", "2e"), "irreps_in must be '1o' or '1e'"),
        (("1o", True, "orthonormal"), "normalization must be one of"),
        (([9], True), "degrees must be 0..8"),
        (([], True), "at least one"),
        ((-1, True), "degrees must be 0..8"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        SphericalHarmonics(*arguments)


def test_compiles():
    module = SphericalHarmonics([2, 0], True)
    x = torch.randn(5, 3, dtype=F64)
    assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
