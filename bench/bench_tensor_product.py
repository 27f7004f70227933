"""Tensor products on the CPU: this library's module against e3nn's, with the same weights and the same operands.

A case runs both in turn within one process, so that what else the machine does falls on both alike; its figure is the
median of the ratios e3nn / ours, with the quartiles. Before it is timed, a case is checked.

    forward    the value, without gradients
    backward   the value, and its gradients by x, y and the weight
    double     the value, these gradients, and the gradients of a product with them by x, y, the weight and the
               incoming gradient

`convolution` is that of a message-passing layer: channels times one harmonic per degree, `uvu`, one weight per sample
(edge), path and channel; the results of paths lie apart as in NequIP and MACE, or are added up (MACE-large's set of
published kernel benchmarks). `fully-connected` is `uvw` with one weight for all.

Run: `make bench`, with OMP_NUM_THREADS for the threads of both; the result goes to bench/results/.
"""

import statistics

import pytest
import record
import torch

from sdas_kernels import nn

o3 = pytest.importorskip("e3nn.o3")

EDGES = 4000
ROUNDS = {"forward": 15, "backward": 9, "double": 5}
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


def check(what, ours, theirs, dtype):
    """Raise unless both agree."""
    operands = draw(ours, 50, dtype)
    for a, b in zip(work(what, ours, operands), work(what, theirs, operands), strict=True):
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


@pytest.fixture(scope="module")
def report():
    record.set_threads()
    unit = "milliseconds; ratios are e3nn / ours, [lower quartile, median, upper quartile]"
    return record.Results("tensor_product", ("case", "what", "dtype"), unit, ["e3nn"])


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
    ours, theirs = modules(case)
    check(what, ours, theirs, default_dtype)
    operands = draw(ours, EDGES, default_dtype)
    functions = {"ours": lambda: work(what, ours, operands), "e3nn": lambda: work(what, theirs, operands)}
    times = benchmark.pedantic(record.in_turn, (functions, ROUNDS[what]), rounds=1)
    row = {"case": case, "edges": EDGES, "what": what, "dtype": str(default_dtype).removeprefix("torch.")}
    row |= {f"{name}_ms": round(1e3 * statistics.median(seconds), 4) for name, seconds in times.items()}
    row["e3nn_over_ours"] = record.quartiles(times["e3nn"], times["ours"])
    benchmark.extra_info.update(row)
    report.append(row)
