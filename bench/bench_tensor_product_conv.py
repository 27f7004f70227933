"""Claim: the convolution over neighbors is many times faster, in a tenth of the memory, than e3nn's tensor product with
a gather before and a scatter (`index_add`) after it.

Random graphs of 64 neighbors per node. Both run in turn within one process with the same operands, and the figure is
the median of the ratios e3nn / ours with the quartiles. Before a case is timed, results are compared.

    forward    the value, without gradients
    backward   the value, and its gradients by features, harmonics and weights
    double     the value, these gradients, and the gradients of a product with them by the same and the incoming one

32 channels, lmax 3: paths and irreps as NequIP builds them, each path's result apart. MACE-large:
128x0e+128x1o+128x2e times 1x0e+1x1o+1x2e+1x3o to 128x0e+128x1o+128x2e+128x3o, paths into one entry added up. One weight
per edge, path and channel, an input of both. Peak memory is what the resident set grows by in a step, results included,
after free memory went back to the system; an input is not part of it.

Run: `make bench`, or this file by pytest, with SDAS_RESUME=1 to go on with a run cut short; the result goes to
bench/results/.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import record
import torch
from peers.memory import peak_growth

import sdas_kernels as sk

o3 = pytest.importorskip("e3nn.o3")

NEIGHBORS = 64
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
CASES = [("32 channels, lmax 3", 2**14), ("32 channels, lmax 3", 2**15), ("MACE-large", 2**14)]


def modules(case: str) -> tuple[sk.nn.TensorProductConv, Any]:
    """Ours and e3nn's."""
    if case == "MACE-large":
        x, y = "128x0e+128x1o+128x2e", "1x0e+1x1o+1x2e+1x3o"
        out = sk.Irreps("128x0e+128x1o+128x2e+128x3o")
        paths = sk.nn.uvu_paths(x, y, out)
    else:
        x, y = "32x0e+32x1o+32x2e+32x3o", "1x0e+1x1o+1x2e+1x3o"
        out, paths = sk.nn.uvu_paths_apart(x, y, x)
    theirs = o3.TensorProduct(x, y, str(out), paths, shared_weights=False, internal_weights=False)
    return sk.nn.TensorProductConv(x, y, out, paths), theirs


def gather_and_scatter(product: Any, x: torch.Tensor, y: Any, weight: Any, edges: sk.EdgeIndex) -> torch.Tensor:
    """What is replaced."""
    messages = product(x[edges.senders], y, weight)
    return messages.new_zeros(len(x), messages.shape[1]).index_add(0, edges.receivers, messages)


def draw(
    module: sk.nn.TensorProductConv, num_edges: int, dtype: torch.dtype
) -> tuple[sk.EdgeIndex, list[torch.Tensor]]:
    """Edges; x, y, weight, incoming gradient, and what the gradients by the first three are multiplied with."""
    random = torch.Generator().manual_seed(0)
    nodes = num_edges // NEIGHBORS
    senders = torch.randint(0, nodes, (num_edges,), generator=random)
    edges = sk.EdgeIndex.from_pairs(torch.arange(num_edges) // NEIGHBORS, senders, nodes)
    shapes = (nodes, module.irreps_in1.dim), (num_edges, module.irreps_in2.dim), (num_edges, module.weight_numel)
    shapes = (*shapes, (nodes, module.irreps_out.dim), *shapes)
    drawn = [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]
    return edges, [t.requires_grad_(n < 4) for n, t in enumerate(drawn)]


def work(what: str, value: Callable[..., torch.Tensor], operands: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What is timed."""
    x, y, weight, grad, *directions = operands
    if what == "forward":
        with torch.no_grad():
            return (value(x, y, weight),)
    first = torch.autograd.grad(value(x, y, weight), (x, y, weight), grad, create_graph=what == "double")
    return first if what == "backward" else torch.autograd.grad(first, (x, y, weight, grad), directions)


def functions(case: str, what: str, num_edges: int, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """A step of each."""
    ours, theirs = modules(case)
    edges, operands = draw(ours, num_edges, dtype)
    return {
        "ours": lambda: work(what, lambda x, y, w: ours(x, y, w, edges), operands),
        "e3nn": lambda: work(what, lambda x, y, w: gather_and_scatter(theirs, x, y, w, edges), operands),
    }


@pytest.fixture(scope="module")
def results() -> record.Results:
    record.set_threads()
    unit = "milliseconds, MiB; ratios are e3nn / ours, [lower quartile, median, upper quartile]"
    return record.Results("tensor_product_conv", ("case", "edges", "what", "dtype"), unit, ["e3nn"])


@pytest.fixture
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """e3nn makes its constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("default_dtype", [torch.float32, torch.float64], ids=str, indirect=True)
@pytest.mark.parametrize("what", ["forward", "backward", "double"])
@pytest.mark.parametrize(("case", "edges"), CASES)
def test_convolution(
    benchmark: Any, results: record.Results, case: str, edges: int, what: str, default_dtype: torch.dtype
) -> None:
    key = {"case": case, "edges": edges, "what": what, "dtype": str(default_dtype).removeprefix("torch.")}
    if not results.missing(**key):
        pytest.skip("measured already at this commit")
    small = functions(case, what, 4 * NEIGHBORS, default_dtype)
    for a, b in zip(small["ours"](), small["e3nn"](), strict=True):
        assert (a - b).abs().max() <= TOLERANCE[default_dtype] * b.abs().max()
    steps = functions(case, what, edges, default_dtype)
    rounds = 7 if what == "forward" else 3
    times = benchmark.pedantic(record.in_turn, (steps, rounds), rounds=1)
    row = {**key, **{f"{name}_ms": round(1e3 * statistics.median(t), 3) for name, t in times.items()}}
    row["e3nn_over_ours"] = record.quartiles(times["e3nn"], times["ours"])
    row |= {f"{name}_peak_mib": round(peak_growth(step) / 2**20, 1) for name, step in steps.items()}
    benchmark.extra_info.update(row)
    results.append(row)
