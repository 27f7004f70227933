"""Radial basis: Bessel functions whose value and first two derivatives end at the cutoff, exact down to length 0."""

from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.ops.radial_basis import polynomial_envelope, radial_basis, reference

OP = "radial_basis"
F64 = torch.float64
CUTOFF = 4.5


def lengths(place="cpu", dtype=F64, n=25):
    return torch.linspace(0.3, 4.4, n, dtype=dtype, device=place)


def second(t, cutoff=CUTOFF, p=6, n=5):
    """Value, first and second derivative by length of each function: `[E, n]` each."""
    t = t.detach().clone().requires_grad_()
    value = radial_basis(t, n, cutoff, p)
    first = [torch.autograd.grad(value[:, k].sum(), t, create_graph=True)[0] for k in range(n)]
    twice = [torch.autograd.grad(by.sum(), t, retain_graph=True)[0] for by in first]
    return value.detach(), torch.stack(first, 1).detach(), torch.stack(twice, 1)


@pytest.mark.parametrize("p", [3, 6, 9])
def test_is_the_published_formula(place, p):
    d = lengths(place)
    found = radial_basis(d, 5, CUTOFF, p).cpu()
    for e, x in enumerate(d.tolist()):
        u = x / CUTOFF
        f = 1 - (p + 1) * (p + 2) / 2 * u**p + p * (p + 2) * u ** (p + 1) - p * (p + 1) / 2 * u ** (p + 2)
        assert polynomial_envelope(d, CUTOFF, p)[e].item() == pytest.approx(f, abs=1e-14)
        for n in range(1, 6):
            wanted = math.sqrt(2 / CUTOFF) * math.sin(n * math.pi * x / CUTOFF) / x * f
            assert found[e, n - 1].item() == pytest.approx(wanted, abs=1e-14)


def test_gradients_are_finite_differences(place, graph_ops):
    d = lengths(place, n=6)
    graph_ops.check_gradients(lambda lengths: radial_basis(lengths, 4, CUTOFF), {"lengths": d}, "lengths")


@pytest.mark.parametrize("n", [1, 8, 33])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_derivative_ladder_is_autograds(place, graph_ops, n, count):
    o = {"lengths": lengths(place, n=count)}
    found = graph_ops.ladder(lambda lengths: radial_basis(lengths, n, CUTOFF), o)
    wanted = graph_ops.ladder(lambda lengths: reference.radial_basis(lengths, n, CUTOFF, 6), o)
    graph_ops.assert_ladders_agree(found, wanted, 1e-10)


def test_ends_smoothly_at_the_cutoff(place):
    """Value, slope and curvature fall as the third, second and first power of what is left; beyond, they are zero."""
    for power, i in ((3, 0), (2, 1), (1, 2)):
        near, far = (
            second(torch.tensor([CUTOFF - step], dtype=F64, device=place))[i].abs().max() for step in (1e-4, 1e-2)
        )
        assert 0 < near <= 1.5 * far * 1e-2**power
    for quantity in second(torch.tensor([CUTOFF, CUTOFF + 1e-9, 2 * CUTOFF], dtype=F64, device=place)):
        assert (quantity == 0).all()


@pytest.mark.parametrize("p", [3, 6, 9])
def test_envelope_falls_to_zero_and_never_below_in_float32(p):
    """It weighs neighbors inside a softmax: a negative weight would make a denominator vanish."""
    u = torch.linspace(0.9, 1.1, 100_001)
    f = polynomial_envelope(u, 1.0, p)
    assert (f >= 0).all()
    assert (f[u >= 1] == 0).all()
    torch.testing.assert_close(f.double(), polynomial_envelope(u.double(), 1.0, p), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_exact_near_length_zero(place, dtype):
    """No 0/0 at zero, and no cancellation where the series takes over from the closed form."""
    d = torch.tensor([0.0, 1e-30, 1e-8, 1e-5, 1e-3, 1.3e-3, 2e-3, 7e-3, 1.4e-2, 2e-2], dtype=dtype, device=place)
    k = torch.arange(1, 6, dtype=F64, device=place) * math.pi / CUTOFF
    x, scale = k * d.double()[:, None], math.sqrt(2 / CUTOFF) * k
    value = scale * (1 - x**2 / 6 + x**4 / 120)
    slope = scale * k * (-x / 3 + x**3 / 30 - x**5 / 840)
    curvature = scale * k * k * (-1 / 3 + x**2 / 10 - x**4 / 168)
    bounds = (1e-6, 5e-5, 5e-3) if dtype == torch.float32 else (1e-10, 1e-9, 1e-8)
    for found, wanted, bound in zip(second(d), (value, slope, curvature), bounds, strict=True):
        assert (found.double() - wanted).abs().max() < bound * wanted.abs().max()


def test_float32_is_close_to_float64(place, graph_ops):
    """Bound of the largest error over the largest entry: 1e-5, twice differentiated too."""
    d = lengths(place, torch.float32, 500)
    found = graph_ops.ladder(lambda lengths: radial_basis(lengths, 8, CUTOFF), {"lengths": d})
    exact = graph_ops.ladder(lambda lengths: reference.radial_basis(lengths, 8, CUTOFF, 6), {"lengths": d.double()})
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree(found, exact, 1e-5)


def test_non_contiguous_and_repeatable(place):
    d = lengths(place, n=40)
    wanted = radial_basis(d[::2].contiguous(), 3, CUTOFF)
    assert torch.equal(radial_basis(d[::2], 3, CUTOFF), wanted)
    assert torch.equal(radial_basis(d[::2], 3, CUTOFF), wanted)


@pytest.mark.parametrize("count", [9, 0])
def test_opcheck(place, count):
    d = lengths(place, n=count).requires_grad_()
    grad = torch.randn(count, 4, dtype=F64, device=place, requires_grad=True)
    ops = torch.ops.sdas_kernels
    torch.library.opcheck(ops.radial_basis.default, (d, 4, CUTOFF, 6))
    torch.library.opcheck(ops.radial_basis_backward.default, (grad, d, CUTOFF, 6))
    tangent = torch.randn(count, dtype=F64, device=place)
    torch.library.opcheck(ops.radial_basis_double_backward.default, (tangent, grad.detach(), d.detach(), CUTOFF, 6))


def test_compiles_once_for_every_edge_count(place):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(lambda d: radial_basis(d, 4, CUTOFF), fullgraph=True, backend=counter)
    for count in (11, 12, 300, 5):
        d = lengths(place, n=count).requires_grad_()
        by = [torch.autograd.grad(f(d).square().sum(), d)[0] for f in (compiled, lambda d: radial_basis(d, 4, CUTOFF))]
        torch.testing.assert_close(*by, rtol=1e-13, atol=1e-13)
    assert counter.frame_count <= 2  # first static, then dynamic


def test_errors_name_the_argument():
    d = lengths()
    for call, error, message in (
        (lambda: radial_basis(d.tolist(), 4, CUTOFF), TypeError, "lengths must be a torch.Tensor, got list"),
        (lambda: radial_basis(d.long(), 4, CUTOFF), TypeError, "lengths must have a floating dtype"),
        (lambda: radial_basis(d[:, None], 4, CUTOFF), ValueError, r"lengths must be \[E\], got \[25, 1\]"),
        (lambda: radial_basis(d, 0, CUTOFF), ValueError, r"n must be 1\.\.4096, got 0"),
        (lambda: radial_basis(d, 4, 0.0), ValueError, r"cutoff must be positive and finite \(Å\), got 0.0"),
        (lambda: radial_basis(d, 4, CUTOFF, 2), ValueError, r"p must be 3\.\.100, got 2"),
        (lambda: polynomial_envelope(d, -1.0), ValueError, "polynomial_envelope: cutoff must be positive"),
    ):
        with pytest.raises(error, match=message):
            call()
