"""Claim: the fused attention layer trains many times faster, in far less memory, than its plain PyTorch reference, and
than the same layer out of e3nn's modules (a tensor product per edge, scatter softmax); its time grows as the edges do.

One default layer on a periodic box of atoms, with the same weights for all; all run in turn within one process, and the
figure is the median of the ratios rival / ours with the quartiles. Results are compared before anything is timed.

    forward     the layer's features
    forces      features and the gradient by positions of their weighted sum
    training    forces, and the gradient of their square by all weights

Operators: the value, the gradients by all operands, and the gradients of their product with random tensors. Their FLOPs
(`sdas_kernels.flops`) per second stand beside those of a large matrix product, and the bytes that they must move at
least, operands and results once each, beside the speed of a large copy, both measured in turn with them; a turn lasts a
fifth of a second. `ours_after_others_ms` is that of single calls, whose operands others drove out of the caches.

Growth: ours alone; `bench/plots.py` fits the exponents and draws them. Peak memory is what the process's resident set
grows by in a step, after free memory went back to the system.

Run: `make bench`, or this file by pytest, with SDAS_RESUME=1 to go on with a run cut short; the result goes to
bench/results/.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import record
import torch
from peers.memory import peak_growth

import sdas_kernels as sk
from sdas_kernels.flops import FlopCounter
from sdas_kernels.nn.geometry import EdgeGeometry

CUTOFF, N_RADIAL = 5.0, 8
TASKS = ("forward", "forces", "training")
ORDERS = ("value", "gradient", "second")
DEFAULT = {"side": 10, "neighbors": 40, "channels": 64, "heads": 32, "lmax": 2}
COMPARED = [
    {**DEFAULT, "side": 5},
    DEFAULT,
    {**DEFAULT, "channels": 32},
    {**DEFAULT, "side": 5, "lmax": 3},
]
OPERATORS = [{**DEFAULT, "channels": 32}, DEFAULT, {**DEFAULT, "side": 8, "lmax": 3}]
GROWTH = {
    "side": (4, 6, 8, 10, 13, 16),
    "neighbors": (10, 20, 40, 80, 160),
    "channels": (32, 64, 128, 256),
    "lmax": (0, 1, 2, 3, 4),
}


def box(side: int, neighbors: int = 40, dtype: torch.dtype = torch.float32) -> sk.NeighborGraph:
    """A jittered cubic lattice of side³ atoms, so dense that each has about so many neighbors."""
    spacing = (4 / 3 * math.pi * CUTOFF**3 / neighbors) ** (1 / 3)
    lattice = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
    jitter = torch.rand(lattice.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = spacing * (lattice + 0.3 * jitter)
    cell = torch.eye(3) * spacing * side
    return sk.NeighborGraph.build(positions, [8] * len(positions), CUTOFF, cell=cell, pbc=True, dtype=dtype)


def layer_step(task: str, graph: sk.NeighborGraph, size: dict[str, int]) -> Callable[[], torch.Tensor]:
    """A function that does one step and returns what it computed."""
    torch.manual_seed(0)
    lmax = size["lmax"]
    layer = sk.nn.SDASLayer(size["channels"], lmax, heads=size["heads"], n_radial=N_RADIAL)
    x = torch.randn(graph.num_atoms, (lmax + 1) ** 2, size["channels"])
    weight = torch.randn_like(x)

    def step() -> torch.Tensor:
        with torch.set_grad_enabled(task != "forward"):
            positions = graph.positions.clone().requires_grad_(task != "forward")
            geometry = EdgeGeometry.from_vectors(graph.edge_vectors(positions), graph, lmax, N_RADIAL, CUTOFF)
            out = layer(x, geometry)
            if task == "forward":
                return out
            (forces,) = torch.autograd.grad((out * weight).sum(), positions, create_graph=task == "training")
            if task == "forces":
                return forces
            layer.zero_grad()
            forces.square().mean().backward()
            return torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])

    return step


def operands(graph: sk.NeighborGraph, size: dict[str, int]) -> list[torch.Tensor]:
    """Of `neighbor_attention`, as a layer has them."""
    random = torch.Generator().manual_seed(0)
    nodes, heads, key, m = graph.num_atoms, size["heads"], 4, (size["lmax"] + 1) ** 2
    geometry = EdgeGeometry.from_vectors(graph.edge_vectors(), graph, size["lmax"], N_RADIAL, CUTOFF)
    shapes = [(nodes, heads, key + m + N_RADIAL), (nodes, heads, key), (nodes, heads), (nodes, m, size["channels"])]
    drawn = [torch.randn(shape, generator=random) for shape in (*shapes, (heads, size["lmax"] + 1, N_RADIAL))]
    drawn[0] *= 0.3
    return [t.detach().requires_grad_() for t in (*drawn, geometry.harmonics, geometry.radial, geometry.envelope)]


def operator_step(
    order: str, attention: Callable[..., torch.Tensor], graph: sk.NeighborGraph, size: dict[str, int]
) -> tuple[Callable[[], list[torch.Tensor]], list[torch.Tensor]]:
    """A function that does only what `order` names, on what the lower orders left; and the tensors it reads."""
    given = operands(graph, size)
    random = torch.Generator().manual_seed(1)

    def value() -> torch.Tensor:
        return attention(*given, graph.edges, size["lmax"])

    if order == "value":
        return inside(torch.no_grad, lambda: [value()]), given
    z = value()
    grad = torch.randn(z.shape, generator=random).requires_grad_()
    if order == "gradient":
        return lambda: list(torch.autograd.grad(z, given, grad, retain_graph=True)), [*given, grad]
    first = torch.autograd.grad(z, given, grad, create_graph=True)
    directions = [torch.randn(t.shape, generator=random) for t in given]
    wanted = [*given, grad]
    return lambda: list(torch.autograd.grad(first, wanted, directions, retain_graph=True)), [*wanted, *directions]


def rivals() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """What must be entered for each to run."""
    from peers import e3nn_attention

    return {"ours": nullcontext, "reference": lambda: sk.use_backend("reference"), "e3nn": e3nn_attention.unfused}


def inside(context: Callable[[], AbstractContextManager[Any]], step: Callable[[], Any]) -> Callable[[], Any]:
    """The step within the context."""

    def run() -> Any:
        with context():
            return step()

    return run


def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in ms, and quartiles of rival / ours."""
    row: dict[str, Any] = {f"{name}_ms": round(1e3 * statistics.median(seconds), 3) for name, seconds in times.items()}
    others = [name for name in times if name != "ours"]
    return row | {f"{name}_over_ours": record.quartiles(times[name], times["ours"]) for name in others}


@pytest.fixture(scope="module")
def results() -> record.Results:
    record.set_threads()
    unit = "milliseconds, MiB; ratios are rival / ours, [lower quartile, median, upper quartile]"
    return record.Results("neighbor_attention", ("what", "task", *DEFAULT), unit, ["e3nn"])


@pytest.mark.parametrize("size", COMPARED, ids=lambda size: "-".join(map(str, size.values())))
@pytest.mark.parametrize("task", TASKS)
def test_layer(benchmark: Any, results: record.Results, task: str, size: dict[str, int]) -> None:
    pytest.importorskip("e3nn")
    key = {"what": "layer", "task": task, **size}
    if not results.missing(**key):
        pytest.skip("measured already at this commit")
    graph = box(size["side"], size["neighbors"])
    step = layer_step(task, graph, size)
    functions = {name: inside(context, step) for name, context in rivals().items()}
    expected = functions["reference"]()
    for name in ("ours", "e3nn"):
        torch.testing.assert_close(functions[name](), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    rounds = 5 if size["side"] == 5 and size["lmax"] == 2 else 2 if task == "training" else 3
    times = benchmark.pedantic(record.in_turn, (functions, rounds, 0), rounds=1)
    row = {**key, "atoms": graph.num_atoms, "edges": graph.num_edges, **ratios(times)}
    if task == "training":
        row |= {f"{name}_peak_mib": round(peak_growth(run) / 2**20, 1) for name, run in functions.items()}
    benchmark.extra_info.update(row)
    results.append(row)


@pytest.mark.parametrize("size", OPERATORS, ids=lambda size: "-".join(map(str, size.values())))
@pytest.mark.parametrize("order", ORDERS)
def test_operator(benchmark: Any, results: record.Results, order: str, size: dict[str, int]) -> None:
    e3nn_attention = pytest.importorskip("peers.e3nn_attention")
    key = {"what": "operator", "task": order, **size}
    if not results.missing(**key):
        pytest.skip("measured already at this commit")
    graph = box(size["side"], size["neighbors"])
    ours, read = operator_step(order, sk.neighbor_attention, graph, size)
    theirs, _ = operator_step(order, e3nn_attention.neighbor_attention, graph, size)
    found = ours()
    for a, b in zip(found, theirs(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-3 * b.abs().max().item())
    matrix = torch.randn(2048, 2048)
    memory, copy = torch.randn(2**25), torch.empty(2**25)
    functions = {"ours": ours, "e3nn": theirs, "product": lambda: matrix @ matrix, "copy": lambda: copy.copy_(memory)}
    cold = statistics.median(record.in_turn(functions, 3)["ours"])
    times = benchmark.pedantic(record.in_turn, (functions, 5, 1, 0.2), rounds=1)
    with FlopCounter() as counter:
        ours()
    moved = sum(t.numel() * t.element_size() for t in (*read, *found))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    flops_per_s, bytes_per_s = counter.total / seconds["ours"], moved / seconds["ours"]
    row = {**key, "atoms": graph.num_atoms, "edges": graph.num_edges, **ratios({n: times[n] for n in ("ours", "e3nn")})}
    row |= {
        "ours_after_others_ms": round(1e3 * cold, 3),
        "flops": counter.total,
        "least_bytes": moved,
        "gflop_per_s": round(flops_per_s / 1e9, 2),
        "gbyte_per_s": round(bytes_per_s / 1e9, 2),
        "share_of_matrix_product": round(flops_per_s / (2 * 2048**3 / seconds["product"]), 3),
        "share_of_copy": round(bytes_per_s / (2 * 2**27 / seconds["copy"]), 3),
    }
    benchmark.extra_info.update(row)
    results.append(row)


@pytest.mark.parametrize(("along", "number"), [(name, n) for name, numbers in GROWTH.items() for n in numbers])
@pytest.mark.parametrize("task", TASKS)
def test_growth(benchmark: Any, results: record.Results, task: str, along: str, number: int) -> None:
    size = {**DEFAULT, "side": 8, along: number}
    key = {"what": f"growth with {along}", "task": task, **size}
    if not results.missing(**key):
        pytest.skip("measured already at this commit")
    graph = box(size["side"], size["neighbors"])
    step = layer_step(task, graph, size)
    times = benchmark.pedantic(record.in_turn, ({"ours": step}, 3), rounds=1)
    row = {**key, "atoms": graph.num_atoms, "edges": graph.num_edges, **ratios(times)}
    row["ours_peak_mib"] = round(peak_growth(step) / 2**20, 1)
    benchmark.extra_info.update(row)
    results.append(row)
