"""Tensor products on the CPU: this library's module against e3nn's, with the same weights and the same operands, and
against cuequivariance's in its own layout, by einsum, where it has a counterpart.

A case runs each rival and ours in turn within one process, so that what else the machine does falls on both alike; its
figure is the median of the ratios rival / ours, with the quartiles. Before it is timed, a case is checked.

    forward    the value, without gradients
    backward   the value, and its gradients by x, y and the weight
    double     the value, these gradients, and the gradients of a product with them by x, y, the weight and the
               incoming gradient

`convolution` is that of a message-passing layer: channels times one harmonic per degree, `uvu`, one weight per sample
(edge), path and channel; the results of paths lie apart as in NequIP and MACE, or are added up (MACE-large's set of
published kernel benchmarks). `fully-connected` is `uvw` with one weight for all.

The bytes that must move at least, operands and results of each rung of the ladder once, per second stand beside the
speed of a large copy, in turn with ours too: `share_of_copy`.

Run: `make bench`, with OMP_NUM_THREADS for the threads of all rivals; the result goes to bench/results/.
"""

import statistics
from functools import partial

import pytest
import record
import torch
from peers import cuequivariance_products as cuequivariance

from sdas_kernels import nn

o3 = pytest.importorskip("e3nn.o3")

EDGES = 4000
ROUNDS = {"forward": 15, "backward": 9, "double": 5}
COPIED = 1 << 27  # bytes, read and written
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}


def convolution(channels, lmax, harmonics_lmax=None, apart=True):
    """e3nn's irreps and instructions."""
    harmonics = o3.Irreps.spherical_harmonics(lmax if harmonics_lmax is None else harmonics_lmax)
    x = o3.Irreps([(channels, (l, (-1) ** l)) for l in range(lmax + 1)])
    wanted = x if apart else o3.Irreps([(channels, ir) for _, ir in harmonics])
    out, paths = [] if apart else list(wanted), []
    for i, (_, first) in enumerate(x):
        for j, (_, second) in enumerate(harmonics):
            for ir in first * second:
                if ir in wanted:
                    if apart:
                        out.append((channels, ir))
                    k = len(out) - 1 if apart else [entry.ir for entry in wanted].index(ir)
                    paths.append((i, j, k, "uvu", True))
    return x, harmonics, o3.Irreps(out), paths


def modules(case):
    """Ours and e3nn's."""
    if case.startswith("fully-connected"):
        x = o3.Irreps("64x0e + 64x1o + 64x2e")
        operands = x, o3.Irreps.spherical_harmonics(2), x
        return nn.FullyConnectedTensorProduct(*operands), o3.FullyConnectedTensorProduct(*operands)
    operands = {
        "convolution, 32 channels, lmax 2": lambda: convolution(32, 2),
        "convolution, 64 channels, lmax 2": lambda: convolution(64, 2),
        "convolution, 64 channels, lmax 3": lambda: convolution(64, 3),
        "convolution, MACE-large": lambda: convolution(128, 2, 3, apart=False),
    }[case]()
    options = {"shared_weights": False, "internal_weights": False}
    return nn.TensorProduct(*operands, **options), o3.TensorProduct(*operands, **options)


CASES = [
    "convolution, 32 channels, lmax 2",
    "convolution, 64 channels, lmax 2",
    "convolution, 64 channels, lmax 3",
    "convolution, MACE-large",
    "fully-connected, 64 channels, lmax 2",
]


def draw(module, edges, dtype):
    """x, y, weight, incoming gradient, and what the gradients by the first three are multiplied with."""
    weight = (module.weight_numel,) if module.internal_weights else (edges, module.weight_numel)
    shapes = (edges, module.irreps_in1.dim), (edges, module.irreps_in2.dim), weight, (edges, module.irreps_out.dim)
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in (*shapes, *shapes[:3])]
    return [t.requires_grad_(n < 4) for n, t in enumerate(drawn)]


def work(what, module, operands):
    """What is timed."""
    x, y, weight, grad, *directions = operands
    if what == "forward":
        with torch.no_grad():
            return (module(x, y, weight),)
    value = module(x, y, weight)
    first = torch.autograd.grad(value, (x, y, weight), grad, create_graph=what == "double")
    return first if what == "backward" else torch.autograd.grad(first, (x, y, weight, grad), directions)


def least_bytes(what, operands):
    """Of all operands and results, once for each order."""
    x, y, weight, grad = (t.numel() for t in operands[:4])
    inputs = x + y + weight
    numbers = inputs + grad
    if what != "forward":
        numbers += inputs + grad + inputs
    if what == "double":
        numbers += 2 * inputs + grad + inputs + grad
    return numbers * operands[0].element_size()


def check(what, ours, theirs, dtype):
    """Raise unless both agree."""
    operands = draw(ours, 50, dtype)
    for a, b in zip(work(what, ours, operands), work(what, theirs, operands), strict=True):
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


def rivals(case, what, dtype):
    """Modules by name, ours first, all of which agree."""
    ours, theirs = modules(case)
    check(what, ours, theirs, dtype)
    found = {"ours": ours, "e3nn": theirs}
    if cuequivariance.available() and cuequivariance.has_counterpart(ours):
        found["cuequivariance"] = cuequivariance.product(ours, dtype)
        check(what, ours, cuequivariance.as_ours(ours, found["cuequivariance"]), dtype)
    return found


@pytest.fixture(scope="module")
def report():
    record.set_threads()
    unit = "milliseconds; ratios are rival / ours, [lower quartile, median, upper quartile]"
    return record.Results("tensor_product", ("case", "what", "dtype"), unit, ["e3nn", "cuequivariance-torch"])


@pytest.fixture
def default_dtype(request):
    """e3nn makes its constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("default_dtype", [torch.float32, torch.float64], indirect=True)
@pytest.mark.parametrize("what", ["forward", "backward", "double"])
@pytest.mark.parametrize("case", CASES)
def test_tensor_product(benchmark, report, case, what, default_dtype):
    found = rivals(case, what, default_dtype)
    operands = draw(found["ours"], EDGES, default_dtype)
    memory = torch.ones(COPIED, dtype=torch.uint8)
    functions = {name: partial(work, what, module, operands) for name, module in found.items()}
    functions["copy"] = partial(torch.zeros_like(memory).copy_, memory)
    ours = functions.pop("ours")

    def with_each():
        return {name: record.in_turn({"ours": ours, name: rival}, ROUNDS[what]) for name, rival in functions.items()}

    times = benchmark.pedantic(with_each, rounds=1)
    row = {"case": case, "edges": EDGES, "what": what, "dtype": str(default_dtype).removeprefix("torch.")}
    row["ours_ms"] = round(1e3 * statistics.median(times["e3nn"]["ours"]), 4)
    row |= {f"{name}_ms": round(1e3 * statistics.median(pair[name]), 4) for name, pair in times.items()}
    row |= {f"{name}_over_ours": record.quartiles(pair[name], pair["ours"]) for name, pair in times.items()}
    row["least_bytes"] = moved = least_bytes(what, operands)
    row["share_of_copy"] = [round(moved / (2 * COPIED) * ratio, 3) for ratio in row.pop("copy_over_ours")]
    benchmark.extra_info.update(row)
    report.append(row)
