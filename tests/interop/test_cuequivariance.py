"""Features and weights pass between this library and cuequivariance."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels import nn
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.irreps import Irreps, ir_mul_from_mul_ir, mul_ir_from_ir_mul, rows_from_ir_mul, to_layout
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


@pytest.mark.parametrize("target", ["mul_ir", "ir_mul", "rows"])
@pytest.mark.parametrize("source", ["mul_ir", "ir_mul", "rows"])
def test_any_layout_to_any_other(source, target):
    irreps = cue.Irreps("O3", "4x0e+4x1o+4x2e")
    x = torch.randn(5, irreps.dim)
    given, wanted = (to_layout(x, irreps, "mul_ir", layout) for layout in (source, target))
    assert torch.equal(to_layout(given, irreps, source, target), wanted)
    assert torch.equal(to_layout(wanted, irreps, target, source), given)


def test_layouts_are_named_or_given_as_its_objects():
    irreps = cue.Irreps("O3", "3x0e+2x1o")
    x = torch.randn(5, irreps.dim)
    assert torch.equal(to_layout(x, irreps, cue.mul_ir, cue.ir_mul), to_layout(x, irreps, "mul_ir", "ir_mul"))
    with pytest.raises(ValueError, match="layout 'mulir': choose one of mul_ir, ir_mul, rows"):
        to_layout(x, irreps, "mulir", "ir_mul")
    with pytest.raises(ValueError, match="'rows': choose mul_ir or ir_mul"):
        nn.FullTensorProduct("1o", "1o", layout="rows")


@pytest.mark.parametrize("layout", [cue.ir_mul, "ir_mul", cue.mul_ir])
def test_modules_take_its_irreps_and_layouts(layout):
    irreps = [cue.Irreps("O3", i) for i in ("3x0e+2x1o", "2x0e+1x1o", "4x0e+3x1o+2x1e")]
    theirs = cuet.FullyConnectedTensorProduct(
        *irreps,
        layout=getattr(cue, layout) if isinstance(layout, str) else layout,
        internal_weights=False,
        shared_weights=True,
        math_dtype=F64,
        use_fallback=True,
    )
    ours = nn.FullyConnectedTensorProduct(*irreps, internal_weights=False, layout=layout)
    x, y = torch.randn(5, irreps[0].dim, dtype=F64), torch.randn(5, irreps[1].dim, dtype=F64)
    weight = torch.randn(ours.weight_numel, dtype=F64)
    torch.testing.assert_close(ours(x, y, weight), theirs(x, y, weight[None]), rtol=1e-10, atol=1e-10)


def test_a_convolution_in_its_layout():
    x, y, out = "4x0e+4x1o", cue.Irreps("O3", "0e+1o"), "4x0e+4x1o+4x2e"
    plain, ours = (nn.TensorProductConv(x, y, out, layout=layout) for layout in ("mul_ir", cue.ir_mul))
    edges = EdgeIndex.from_pairs(torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]), 3)
    features, harmonics, weight = torch.randn(3, 16), torch.randn(3, 4), torch.randn(3, ours.weight_numel)
    result = ours(to_layout(features, x, "mul_ir", "ir_mul"), harmonics, weight, edges)
    wanted = plain(features, harmonics, weight, edges)
    torch.testing.assert_close(to_layout(result, plain.irreps_out, "ir_mul", "mul_ir"), wanted)


@pytest.mark.parametrize("irreps", ["3x0e+2x1o", cue.Irreps("O3", "3x0e+2x1o")])
def test_harmonics_and_convolutions_take_its_irreps(irreps):
    harmonics = nn.SphericalHarmonics(cue.Irreps("O3", "0e+1o+2e"), True)
    assert harmonics.irreps_out == Irreps("0e+1o+2e")
    assert nn.TensorProductConv(irreps, cue.Irreps("O3", "0e+1o"), irreps).irreps_in1 == Irreps("3x0e+2x1o")
