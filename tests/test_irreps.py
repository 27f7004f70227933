"""Irreps: parsing, order, and the layouts of features; e3nn and cuequivariance are the oracles."""

from __future__ import annotations

import pickle

import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from sdas_kernels.irreps import (
    Irrep,
    Irreps,
    ir_mul_from_mul_ir,
    ir_mul_from_rows,
    mul_ir_from_ir_mul,
    mul_ir_from_rows,
    rows_from_ir_mul,
    rows_from_mul_ir,
)

entries = st.lists(st.tuples(st.integers(0, 4), st.tuples(st.integers(0, 4), st.sampled_from([1, -1]))), max_size=6)


@settings(deadline=None)
@given(entries)
def test_agrees_with_e3nn(entries):
    ours, theirs = Irreps(entries), o3.Irreps(entries)
    assert str(ours) == str(theirs)
    assert Irreps(str(theirs)) == ours
    assert Irreps(theirs) == ours
    assert o3.Irreps(ours) == theirs
    assert (ours.dim, ours.num_irreps, ours.ls, ours.slices()) == (
        theirs.dim,
        theirs.num_irreps,
        theirs.ls,
        theirs.slices(),
    )
    assert str(ours.simplify()) == str(theirs.simplify())
    (sorted_irreps, place), wanted = ours.sort(), theirs.sort()
    assert (str(sorted_irreps), place) == (str(wanted.irreps), tuple(wanted.p))
    if ours.num_irreps:
        assert ours.lmax == theirs.lmax
    assert ours.count("1o") == theirs.count("1o")


@settings(deadline=None)
@given(entries)
def test_is_a_value(entries):
    irreps = Irreps(entries)
    assert pickle.loads(pickle.dumps(irreps)) == irreps
    assert len({irreps, Irreps(entries)}) == 1
    assert Irreps(irreps) is irreps
    assert irreps + "1x9e" == Irreps([*entries, (1, (9, 1))])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("32x0e+16x1o", [(32, Irrep(0, 1)), (16, Irrep(1, -1))]),
        (" 2 x 1o + 10e ", [(2, Irrep(1, -1)), (1, Irrep(10, 1))]),
        ("", []),
        (Irrep("1o"), [(1, Irrep(1, -1))]),
        (o3.Irrep("1o"), [(1, Irrep(1, -1))]),
        (["1o", Irrep("2e"), o3.Irrep("0e"), (3, "1e"), [2, (0, -1)]], "1o+2e+0e+3x1e+2x0o"),
    ],
)
def test_forms_that_are_understood(given, wanted):
    assert Irreps(given) == Irreps(wanted)


@pytest.mark.parametrize("wrong", ["1x", "3x1", "1o+", "x1o", "-1x1o", "1x1o,2e", 3, [3], [(1, 2, 3)], [(-1, "1o")]])
def test_forms_that_are_refused(wrong):
    with pytest.raises(ValueError, match=r"irrep"):
        Irreps(wrong)


@pytest.mark.parametrize("wrong", [(-1, 1), (1, 0), (0.5, 1), "1", "o", 4, (1, 2, 3)])
def test_irreps_that_are_refused(wrong):
    with pytest.raises(ValueError, match=r"irrep"):
        Irrep(wrong)


def test_lmax_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no irrep"):
        _ = Irreps("0x1o").lmax


@pytest.mark.parametrize(("a", "b"), [("1o", "1o"), ("2e", "1o"), ("0o", "3e"), ("4o", "2o")])
def test_product_of_irreps(a, b):
    assert list(map(str, Irrep(a) * b)) == [str(ir) for ir in o3.Irrep(a) * o3.Irrep(b)]


def test_harmonics_of_vectors_and_pseudovectors():
    assert Irreps.spherical_harmonics(3) == Irreps(o3.Irreps.spherical_harmonics(3)) == Irreps("0e+1o+2e+3o")
    assert Irreps.spherical_harmonics(3, 1) == Irreps(o3.Irreps.spherical_harmonics(3, 1))


def test_layouts_hold_the_same_components():
    """The component (entry, multiplicity u, order m) is found where each layout says it is."""
    irreps = Irreps("4x0e+4x1o+4x2e")
    x = torch.randn(2, 3, irreps.dim)
    ir_mul, rows = ir_mul_from_mul_ir(x, irreps), rows_from_mul_ir(x, irreps)
    assert rows.shape == (2, 3, 9, 4)
    for l, piece in enumerate(irreps.slices()):
        for u in range(4):
            for m in range(2 * l + 1):
                wanted = x[..., piece.start + u * (2 * l + 1) + m]
                assert torch.equal(ir_mul[..., piece.start + m * 4 + u], wanted)
                assert torch.equal(rows[..., l * l + m, u], wanted)


@settings(deadline=None)
@given(entries)
def test_layouts_convert_back(entries):
    irreps = Irreps(entries)
    x = torch.randn(2, irreps.dim)
    assert torch.equal(mul_ir_from_ir_mul(ir_mul_from_mul_ir(x, irreps), irreps), x)
    same = Irreps([(3, (l, 1)) for l in range(len(entries))])
    if same:
        x = torch.randn(2, same.dim)
        assert torch.equal(mul_ir_from_rows(rows_from_mul_ir(x, same), same), x)
        assert torch.equal(ir_mul_from_rows(rows_from_ir_mul(x, same), same), x)


def test_layouts_are_differentiable():
    x = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: rows_from_mul_ir(t, "4x0e+4x1o"), (x,))


@pytest.mark.parametrize("irreps", ["4x0e+3x1o", "4x1o+4x0e", "4x0e+4x2e", "4x0e+4x0e", ""])
def test_rows_need_equal_multiplicities_of_all_degrees(irreps):
    with pytest.raises(ValueError, match="must be the degrees 0, 1"):
        rows_from_mul_ir(torch.randn(2, Irreps(irreps).dim), irreps)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must be \[.., 7\], got \[2, 6\]"):
        ir_mul_from_mul_ir(torch.ones(2, 6), "1x0e+2x1o")
    with pytest.raises(ValueError, match=r"must be \[.., 4, 2\], got \[4, 3\]"):
        mul_ir_from_rows(torch.ones(4, 3), "2x0e+2x1o")
