"""Spherical harmonics: e3nn's values, exact derivatives, and sane behavior at zero, tiny and huge vectors."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.special import sph_harm_y
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels import native
from sdas_kernels.dispatch import use_backend
from sdas_kernels.ops.spherical_harmonics import NORMALIZATIONS, reference, spherical_harmonics

BACKENDS = ["reference"] + (["cpp"] if native.available()[0] else [])
F64 = torch.float64


@pytest.fixture(params=BACKENDS)
def backend(request):
    with use_backend(request.param, "spherical_harmonics"):
        yield request.param


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def vectors(n=7, dtype=F64, seed=0):
    return torch.randn(n, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def same(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("normalize", [True, False])
def test_values_are_e3nns(backend, normalize, normalization):
    x = vectors()
    for lmax in range(9):
        wanted = o3.spherical_harmonics(list(range(lmax + 1)), x, normalize, normalization)
        scale = 1 if normalize else x.norm(dim=1, keepdim=True).clamp(min=1) ** lmax
        same(spherical_harmonics(x, lmax, normalize, normalization) / scale, wanted / scale)


def test_values_are_scipys(backend):
    """Real harmonics without Condon–Shortley phase, of the rotated vector (z, x, y), made of scipy's complex ones."""
    x = vectors(11)
    r = x.norm(dim=1).numpy()
    X, Y, Z = (x[:, i].numpy() for i in (2, 0, 1))
    theta, phi = np.arccos(Z / r), np.arctan2(Y, X)
    columns = []
    for l in range(9):
        for m in range(-l, l + 1):
            value = (-1.0) ** m * sph_harm_y(l, abs(m), theta, phi)
            columns.append(value.real if m == 0 else math.sqrt(2) * (value.imag if m < 0 else value.real))
    same(spherical_harmonics(x, 8, True, "integral"), torch.from_numpy(np.stack(columns, 1)))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("lmax", [0, 1, 2, 3, 5, 8])
def test_derivatives_are_those_of_the_formula(backend, lmax, normalization, normalize):
    """First and second derivatives against PyTorch's own through the reference formula."""

    def formula(x, *options):
        return reference.spherical_harmonics(x, *options) + 0 * x.pow(3).sum()  # differentiable for lmax 0 and 1 too

    results = []
    for function in (spherical_harmonics, formula):
        x = vectors().requires_grad_()
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(7, (lmax + 1) ** 2, dtype=F64, generator=generator).requires_grad_()
        direction = torch.randn(7, 3, dtype=F64, generator=generator)
        value = (function(x, lmax, normalize, normalization) * weight).sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        results.append([slope, *torch.autograd.grad((slope * direction).sum(), (weight, x))])
    for ours, wanted in zip(*results, strict=True):
        scale = wanted.abs().max().clamp(min=1).item()
        same(ours / scale, wanted / scale)


def test_first_and_second_derivatives_are_e3nns(backend):
    x = vectors().requires_grad_()
    weight = torch.randn(7, 25, dtype=F64)
    results = []
    for values in (spherical_harmonics(x, 4, True), o3.spherical_harmonics(range(5), x, True, "component")):
        (slope,) = torch.autograd.grad((values * weight).sum(), x, create_graph=True)
        results.append((slope, *torch.autograd.grad(slope.pow(2).sum(), x)))
    same(results[0], results[1], 1e-10)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("lmax", [1, 3])
def test_gradcheck_and_gradgradcheck(backend, lmax, normalize):
    x = (vectors(2) / 2).requires_grad_()

    def function(v):
        return spherical_harmonics(v, lmax, normalize, "norm")

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("lmax", [0, 8])
def test_gradcheck_of_the_lowest_and_the_highest_degree(backend, lmax):
    x = vectors(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: spherical_harmonics(v, lmax), (x,))


def test_gradcheck_of_the_backward_by_each_operand(backend):
    x = vectors(2)
    grad = torch.randn(2, 16, dtype=F64, requires_grad=True)
    backward = torch.ops.sdas_kernels.spherical_harmonics_backward
    assert torch.autograd.gradcheck(lambda g: backward(g, x, 3, True, "component"), (grad,))
    assert torch.autograd.gradcheck(lambda v: backward(grad.detach(), v, 3, True, "component"), (x.requires_grad_(),))


@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(backend, normalize):
    ops = torch.ops.sdas_kernels
    options = (2, normalize, "component")
    x, grad, grad_grad = vectors(4).requires_grad_(), torch.randn(4, 9, dtype=F64).requires_grad_(), vectors(4, seed=1)
    torch.library.opcheck(ops.spherical_harmonics, (x, *options))
    torch.library.opcheck(ops.spherical_harmonics_backward, (grad, x, *options))
    torch.library.opcheck(ops.spherical_harmonics_double_backward, (grad_grad, grad.detach(), x.detach(), *options))


@pytest.mark.parametrize("l", [1, 2, 5, 8])
def test_rotating_the_vector_rotates_the_harmonics(backend, l):
    with default_dtype(F64):  # e3nn makes its generators in the default dtype
        rotation = o3.rand_matrix()
        d = o3.Irrep(l, (-1) ** l).D_from_matrix(rotation)
    x = vectors()
    rows = slice(l * l, (l + 1) ** 2)
    same(spherical_harmonics(x @ rotation.T, l)[:, rows], spherical_harmonics(x, l)[:, rows] @ d.T, 1e-10)
    same(spherical_harmonics(-x, l)[:, rows], (-1) ** l * spherical_harmonics(x, l)[:, rows])


def test_normalizations_mean_what_they_say(backend):
    x = vectors()
    for l in range(9):
        rows = slice(l * l, (l + 1) ** 2)
        squares = {n: spherical_harmonics(x, 8, True, n)[:, rows].pow(2).sum(1) for n in NORMALIZATIONS}
        same(squares["component"], torch.full((7,), 2.0 * l + 1, dtype=F64))
        same(squares["norm"], torch.ones(7, dtype=F64))
        same(squares["integral"], torch.full((7,), (2 * l + 1) / (4 * math.pi), dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_zero_vector_has_zero_derivatives(backend, dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    x[1] = torch.tensor([0.3, -1.0, 0.5])
    x.requires_grad_()
    values = spherical_harmonics(x, 4)
    assert values[0, 0] == 1
    assert not values[0, 1:].any()
    (slope,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    assert not slope[0].any()
    assert not second[0].any()
    assert slope[1].any()
    assert second[1].any()
    assert torch.isfinite(slope).all()
    assert torch.isfinite(second).all()


@pytest.mark.parametrize("length", [1e-30, 1e-20, 1e20, 1e30])
def test_only_the_direction_of_tiny_and_huge_vectors_counts(backend, length):
    """float32, whose squares of these lengths under- or overflow; the slope scales with 1/|r|."""
    unit = vectors(dtype=torch.float32)
    unit = unit / unit.norm(dim=1, keepdim=True)
    slopes = []
    for x in (unit.clone(), unit * length):
        x.requires_grad_()
        values = spherical_harmonics(x, 4)
        same(values.detach(), spherical_harmonics(unit, 4), 1e-5)
        slopes.append(torch.autograd.grad(values[:, 1:3].sum(), x)[0])
    same(slopes[1].double() * length, slopes[0].double(), 1e-5)


@pytest.mark.parametrize("lmax", [2, 4, 8])
def test_float32_is_float64_rounded(backend, lmax):
    x = vectors(200, torch.float32)
    error = spherical_harmonics(x, lmax).double() - spherical_harmonics(x.double(), lmax)
    assert error.abs().max() < 2e-5
    assert error.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_keeps_its_dtype(dtype):
    values = spherical_harmonics(vectors(20, dtype), 2)
    assert values.dtype == dtype
    same(values.double(), spherical_harmonics(vectors(20, dtype).double(), 2), 0.05)


def test_layouts_and_leading_axes(backend):
    x = vectors(24).reshape(2, 3, 4, 3)
    wanted = spherical_harmonics(x, 3)
    assert wanted.shape == (2, 3, 4, 16)
    transposed = x.movedim(-1, 0).contiguous().movedim(0, -1)
    assert not transposed.is_contiguous()
    assert torch.equal(spherical_harmonics(transposed, 3), wanted)
    assert torch.equal(spherical_harmonics(x[:, ::2], 3), wanted[:, ::2])
    assert torch.equal(spherical_harmonics(x[0, 0, 0], 3), wanted[0, 0, 0])


def test_gradient_that_is_not_contiguous(backend):
    x = vectors().requires_grad_()
    weight = torch.randn(16, 7, dtype=F64)
    (a,) = torch.autograd.grad(spherical_harmonics(x, 3), x, weight.T)
    (b,) = torch.autograd.grad(spherical_harmonics(x, 3), x, weight.T.contiguous())
    assert torch.equal(a, b)


def test_no_vectors(backend):
    x = torch.zeros(0, 3, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(spherical_harmonics(x, 3).sum(), x, create_graph=True)
    assert slope.shape == (0, 3)
    assert torch.autograd.grad(slope.sum(), x)[0].shape == (0, 3)


def test_repeats_bitwise(backend):
    x = vectors(1001, torch.float32)
    assert torch.equal(spherical_harmonics(x, 5), spherical_harmonics(x, 5))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([[1.0, 2.0, 3.0]], 1), TypeError, "vectors must be a torch.Tensor"),
        ((torch.ones(2, 3, dtype=torch.int64), 1), TypeError, "floating dtype"),
        ((torch.ones(2, 4), 1), ValueError, r"vectors must be \[\.\.\., 3\], got \[2, 4\]"),
        ((torch.ones(2, 3), 9), ValueError, "lmax must be 0..8, got 9"),
        ((torch.ones(2, 3), -1), ValueError, "lmax must be 0..8, got -1"),
        ((torch.ones(2, 3), 1, True, "orthonormal"), ValueError, "normalization must be one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        spherical_harmonics(*arguments)


def test_compiles_once_for_all_batch_sizes(backend):
    counter = CompileCounterWithBackend("aot_eager")

    def energy_and_force(x):
        y = spherical_harmonics(x * 1.5, 3)
        return y.pow(3).sum()

    compiled = torch.compile(energy_and_force, backend=counter, fullgraph=True)
    for n in (5, 6, 9, 17, 30):
        x = vectors(n).requires_grad_()
        (ours,) = torch.autograd.grad(compiled(x), x)
        (wanted,) = torch.autograd.grad(energy_and_force(x), x)
        same(ours, wanted)
    assert counter.frame_count <= 2, "one graph for the first size, one for every other"
