"""The compiled spherical harmonics against scipy and the reference, at every SIMD level.

The level is chosen once per process, so each level runs in a process of its own, which
repeats this file.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from sdas_kernels import native
from sdas_kernels.ops.spherical_harmonics import cpp, reference

NORMALIZATIONS = ("component", "integral", "norm")
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def oracle(vectors, lmax, normalization):
    """Harmonics of unit vectors from scipy's complex ones, whose sign (-1)^m is taken out."""
    x, y, z = vectors.double().numpy().T
    theta, phi = np.arccos(np.clip(y, -1, 1)), np.arctan2(x, z)
    rows = []
    for l in range(lmax + 1):
        area = {"integral": 1.0, "component": np.sqrt(4 * np.pi), "norm": np.sqrt(4 * np.pi / (2 * l + 1))}
        for m in range(-l, l + 1):
            value = sph_harm_y(l, abs(m), theta, phi) * (-1.0) ** m
            part = value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag)
            rows.append(part * area[normalization])
    return torch.tensor(np.stack(rows, -1))


def operands(count, lmax, dtype):
    generator = torch.Generator().manual_seed(count + 100 * lmax)
    shapes = (count, 3), (count, (lmax + 1) ** 2), (count, 3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, vectors, grad, grad_grad, *options):
    return (
        module.forward(vectors, *options),
        module.backward(grad, vectors, *options),
        *module.double_backward(grad_grad, grad, vectors, *options),
    )


def error(found, expected):
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lmax", range(9))
def test_values_are_those_of_scipy(lmax, dtype):
    vectors = operands(101, lmax, dtype)[0]
    unit = torch.nn.functional.normalize(vectors.double())
    for normalization in NORMALIZATIONS:
        found = cpp.forward(vectors, lmax, True, normalization)
        assert error(found, oracle(unit, lmax, normalization)) < TOLERANCE[dtype]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lmax", range(9))
def test_derivatives_are_those_of_the_reference(lmax, dtype, normalize):
    for normalization in NORMALIZATIONS:
        for count in (1, 2, 5, 16, 39):
            arguments = operands(count, lmax, dtype)
            found = ladder(cpp, *arguments, lmax, normalize, normalization)
            expected = ladder(reference, *(a.double() for a in arguments), lmax, normalize, normalization)
            for a, b in zip(found, expected, strict=True):
                assert error(a, b) < TOLERANCE[dtype]


def test_no_vectors_give_empty_results():
    for array in ladder(cpp, *operands(0, 3, torch.float32), 3, True, "component"):
        assert array.shape[0] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_origin_has_only_a_constant_and_no_derivative(dtype):
    vectors, grad, grad_grad = operands(19, 8, dtype)
    vectors[7] = 0
    for normalize in (True, False):
        assert torch.equal(cpp.forward(vectors, 8, normalize, "component")[7], torch.eye(81, dtype=dtype)[0])
    for array in ladder(cpp, vectors, grad, grad_grad, 8, True, "component")[1:]:
        assert torch.equal(array[7], torch.zeros_like(array[7]))


@pytest.mark.parametrize(("dtype", "exponents"), [(torch.float32, (-118, 126)), (torch.float64, (-1014, 1022))])
def test_directions_survive_huge_and_tiny_lengths(dtype, exponents):
    """As long as no component is a subnormal number, which kernels take for zero."""
    vectors = (operands(33, 5, dtype)[0] * 64).round().clamp(min=1) / 128
    expected = cpp.forward(vectors, 5, True, "component")
    for exponent in exponents:
        scaled = torch.ldexp(vectors.double(), torch.tensor(float(exponent // 2))).double()
        scaled = torch.ldexp(scaled, torch.tensor(float(exponent - exponent // 2))).to(dtype)
        assert error(cpp.forward(scaled, 5, True, "component"), expected.double()) < TOLERANCE[dtype]


def test_what_is_not_a_number_stays_so_and_stays_alone():
    vectors = operands(32, 3, torch.float32)[0]
    expected = cpp.forward(vectors, 3, True, "component")
    damaged = vectors.clone()
    damaged[3, 1] = float("nan")
    found = cpp.forward(damaged, 3, True, "component")
    assert found[3, 1:].isnan().all()
    rest = torch.arange(32) != 3
    assert torch.equal(found[rest], expected[rest])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vector_gives_the_same_bits_wherever_it_stands(dtype):
    arguments = operands(70, 4, dtype)
    whole = ladder(cpp, *arguments, 4, True, "component")
    part = ladder(cpp, *(a[13:50].contiguous() for a in arguments), 4, True, "component")
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[13:50], b)


def test_repeats_and_thread_counts_give_the_same_bits():
    arguments = operands(40003, 5, torch.float64)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(ladder(cpp, *arguments, 5, True, "integral"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_arrays_are_never_overrun():
    """Each array ends, then begins, at a page that may not be touched; see guarded_arrays.py."""
    script = os.path.join(os.path.dirname(__file__), "guarded_arrays.py")
    result = subprocess.run([sys.executable, "-P", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_every_simd_level(passes_at_level):
    passes_at_level(__file__)


def test_an_unknown_simd_level_is_an_error_that_names_the_choices():
    environment = os.environ | {"SDAS_KERNELS_SIMD": "sse9"}
    probe = "from sdas_kernels import native; print(native.available())"
    found = subprocess.run(
        [sys.executable, "-P", "-c", probe], env=environment, capture_output=True, text=True, check=True
    )
    assert "False" in found.stdout
    assert "want baseline, avx2 or avx512" in found.stdout
