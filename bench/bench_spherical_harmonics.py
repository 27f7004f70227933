"""Claim: the compiled spherical harmonics are at least as fast as sphericart's C++, and faster than e3nn and
cuequivariance on a CPU.

Each case runs the rivals in turn within one process, so that what else the machine does falls on all of them alike;
its figure is the median of the ratios rival / ours, with the quartiles. Before it is timed, a case is checked.

    values      harmonics [B, M]
    gradient    harmonics and the gradient [B, 3] of a weighted sum of them. Sphericart gives the whole Jacobian
                [B, 3, M] instead, as its own backward pass needs; the sum over it is not timed.
    second      values, gradient, and the gradients of that; sphericart gives all Hessians [B, 3, 3, M].

Run: `make bench`, with OMP_NUM_THREADS for the threads of all rivals; the result goes to bench/results/.
"""

import math
import statistics
from functools import partial

import pytest
import record
import torch
from peers import cuequivariance_products as cuequivariance

from sdas_kernels.ops.spherical_harmonics import cpp

sphericart = pytest.importorskip("sphericart")
o3 = pytest.importorskip("e3nn.o3")

LARGEST_PEER_RESULT = 4e8  # bytes
LARGEST_SLOW = 100_000  # vectors, for e3nn and cuequivariance
LARGEST_CUEQUIVARIANCE = 4  # lmax; it takes minutes to make larger ones
OPTIONS = True, "integral"

CASES = [
    (what, count, lmax, dtype)
    for what, factor in (("values", 1), ("gradient", 3), ("second", 9))
    for count in (10_000, 100_000, 1_000_000)
    for lmax in range(1, 9)
    for dtype in (torch.float32, torch.float64)
    if count * (lmax + 1) ** 2 * dtype.itemsize * factor <= LARGEST_PEER_RESULT
    if what != "second" or (count == 10_000 and lmax % 2 == 0)
]


def rivals(what, vectors, lmax):
    """Name -> (function that is timed, its harmonics). Ours first."""
    m = (lmax + 1) ** 2
    grad, grad_grad = torch.randn(len(vectors), m, dtype=vectors.dtype), torch.randn_like(vectors)
    array, peer = vectors.numpy(), sphericart.SphericalHarmonics(lmax)
    degrees = list(range(lmax + 1))

    def ours():
        values = cpp.forward(vectors, lmax, *OPTIONS)
        if what != "values":
            cpp.backward(grad, vectors, lmax, *OPTIONS)
        if what == "second":
            cpp.double_backward(grad_grad, grad, vectors, lmax, *OPTIONS)
        return values

    def by_autograd(harmonics):
        if what == "values":
            return harmonics(vectors)
        leaf, weight = vectors.clone().requires_grad_(), grad.clone().requires_grad_(what == "second")
        values = harmonics(leaf)
        (first,) = torch.autograd.grad(values, leaf, weight, create_graph=what == "second")
        if what == "second":
            torch.autograd.grad(first, (leaf, weight), grad_grad)
        return values.detach()

    name = {"values": "compute", "gradient": "compute_with_gradients", "second": "compute_with_hessians"}[what]
    compute = getattr(peer, name)
    result = {"ours": ours, "sphericart": lambda: compute(array)}
    if len(vectors) <= LARGEST_SLOW:
        result["e3nn"] = partial(by_autograd, lambda v: o3.spherical_harmonics(degrees, v, *OPTIONS))
        if cuequivariance.available() and lmax <= LARGEST_CUEQUIVARIANCE:
            component = cuequivariance.harmonics(lmax, vectors.dtype)
            result["cuequivariance"] = partial(by_autograd, lambda v: component(v) / math.sqrt(4 * math.pi))
    return result


def check(what, lmax, dtype):
    """Raise unless all rivals agree on a few vectors, their axes put into one order."""
    vectors = torch.randn(100, 3, dtype=dtype)
    turned = vectors[:, [2, 0, 1]].contiguous()  # e3nn's (x, y, z) are the textbook's (Y, Z, X)
    expected = rivals(what, vectors, lmax)["ours"]()
    theirs = rivals(what, turned, lmax)["sphericart"]()
    theirs = theirs if what == "values" else theirs[0]
    tolerance = {"rtol": 0.0, "atol": 1e-4 if dtype == torch.float32 else 1e-10}
    torch.testing.assert_close(torch.as_tensor(theirs), expected, **tolerance)
    for name in rivals(what, vectors, lmax).keys() - {"ours", "sphericart"}:
        torch.testing.assert_close(rivals(what, vectors, lmax)[name](), expected, **tolerance)


@pytest.fixture(scope="module")
def report():
    record.set_threads()
    packages = ["sphericart", "e3nn", "cuequivariance-torch"]
    unit = "milliseconds; ratios are rival / ours, [lower quartile, median, upper quartile]"
    return record.Results("spherical_harmonics", ("what", "count", "lmax", "dtype"), unit, packages)


@pytest.mark.parametrize(("what", "count", "lmax", "dtype"), CASES)
def test_spherical_harmonics(benchmark, report, what, count, lmax, dtype):
    check(what, lmax, dtype)
    vectors = torch.randn(count, 3, dtype=dtype)
    functions = rivals(what, vectors, lmax)
    rounds = 31 if count == 10_000 else 9
    times = benchmark.pedantic(record.in_turn, (functions, rounds), {"warmup": 2}, rounds=1)
    row = {"what": what, "count": count, "lmax": lmax, "dtype": str(dtype).removeprefix("torch.")}
    row |= {f"{name}_ms": round(1e3 * statistics.median(seconds), 4) for name, seconds in times.items()}
    row |= {f"{name}_over_ours": record.quartiles(times[name], times["ours"]) for name in functions if name != "ours"}
    benchmark.extra_info.update(row)
    report.append(row)
