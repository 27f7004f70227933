"""Features and weights pass between this library and cuequivariance."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels import nn
from sdas_kernels.irreps import Irreps, ir_mul_from_mul_ir, mul_ir_from_ir_mul, rows_from_ir_mul
from sdas_kernels.ops.spherical_harmonics import spherical_harmonics

cue = pytest.importorskip("cuequivariance")
cuet = pytest.importorskip("cuequivariance_torch")
F64 = torch.float64


def test_irreps_are_understood():
    for text in ("32x0e+16x1o+0x2e", "1o", "3x2e+2x2o"):
        assert str(Irreps(cue.Irreps("O3", text))) == str(Irreps(text))
    assert Irreps([(2, ir) for _, ir in cue.Irreps("O3", "1o+2e")]) == Irreps("2x1o+2x2e")
    with pytest.raises(ValueError, match="degree and parity"):
        Irreps(cue.Irreps("SO3", "3x1"))


@pytest.mark.parametrize("lmax", [0, 1, 2, 3, 4])
def test_spherical_harmonics(lmax):
    x = torch.randn(9, 3, dtype=F64)
    theirs = cuet.SphericalHarmonics(list(range(lmax + 1)), normalize=True, math_dtype=F64)(x)
    torch.testing.assert_close(spherical_harmonics(x, lmax), theirs, rtol=1e-12, atol=1e-12)


def test_layouts_are_those_of_its_own_converter():
    irreps = cue.Irreps("O3", "3x0e+2x1o+4x2e")
    transpose = cuet.TransposeIrrepsLayout(irreps, source=cue.mul_ir, target=cue.ir_mul, use_fallback=True)
    x = torch.randn(5, irreps.dim)
    assert torch.equal(ir_mul_from_mul_ir(x, irreps), transpose(x))
    assert torch.equal(mul_ir_from_ir_mul(transpose(x), irreps), x)


def test_features_in_ir_mul_are_rows():
    irreps = cue.Irreps("O3", "4x0e+4x1o")
    x = torch.randn(5, 16)
    rows = rows_from_ir_mul(x, irreps)
    assert rows.data_ptr() == x.data_ptr()
    assert torch.equal(rows[:, 2], x[:, 8:12])


def test_fully_connected_product_with_the_same_weight():
    """cuequivariance keeps e3nn's normalization and order of paths."""
    irreps = ["3x0e+2x1o", "2x0e+1x1o", "4x0e+3x1o+2x1e"]
    theirs = cuet.FullyConnectedTensorProduct(
        *(cue.Irreps("O3", i) for i in irreps),
        layout=cue.mul_ir,
        internal_weights=False,
        shared_weights=True,
        math_dtype=F64,
        use_fallback=True,
    )
    ours = nn.FullyConnectedTensorProduct(*irreps, internal_weights=False)
    assert theirs.weight_numel == ours.weight_numel
    x, y = torch.randn(5, ours.irreps_in1.dim, dtype=F64), torch.randn(5, ours.irreps_in2.dim, dtype=F64)
    weight = torch.randn(ours.weight_numel, dtype=F64)
    torch.testing.assert_close(ours(x, y, weight), theirs(x, y, weight[None]), rtol=1e-10, atol=1e-10)
