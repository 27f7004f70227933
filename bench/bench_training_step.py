"""Claim: the whole model steps several times faster by the compiled kernels than by their plain PyTorch reference.

The default model, energies and forces, on molecules and on a periodic box; both backends run in turn within one
process, and the figure is the median of the ratios reference / ours with the quartiles. Results are compared before
anything is timed.

    forces      energies and forces, without the graph for a second derivative
    training    energies, forces and the gradient of their loss by all weights, gradient clipping, Adam, weight average

The ethanol case is the training of `make demo`: 8 molecules a step.

Run: `make bench`, or this file by pytest; the result goes to bench/results/.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import record
import torch

import sdas_kernels as sk
from sdas.data import read_frames, sample

CUTOFF, LMAX, LAYERS, HEADS = 5.0, 2, 2, 32
NEIGHBORS, SIDE = 40, 10  # of the box
# 21 atoms of aspirin's composition within its extent; speed depends on the number of neighbors, not on the chemistry.
MOLECULE = [6] * 9 + [1] * 8 + [8] * 4
SYSTEMS = ("ethanol x8", "aspirin-sized x1", "box x1")
"""What is computed, by name: 72, 21 and 1000 atoms."""
SIZES = [(system, channels) for system in SYSTEMS for channels in ((64,) if system == "box x1" else (32, 64))]


def ethanol(count: int) -> sk.NeighborGraph:
    """Frames of the sample that comes with the package."""
    frames = [frame for frame, _ in zip(read_frames(sample("ethanol")[0]), range(count), strict=False)]
    graphs = [sk.NeighborGraph.build(f.positions, f.numbers, CUTOFF, dtype=torch.float32) for f in frames]
    return sk.NeighborGraph.batch(graphs)


def molecule() -> sk.NeighborGraph:
    """Random places in a slab as large as aspirin, none closer than 1 Å to another."""
    random = torch.Generator().manual_seed(0)
    places: list[torch.Tensor] = []
    while len(places) < len(MOLECULE):
        place = torch.rand(3, generator=random, dtype=torch.float64) * torch.tensor([7.0, 6.0, 3.0])
        if all((place - other).norm() > 1.0 for other in places):
            places.append(place)
    return sk.NeighborGraph.build(torch.stack(places), MOLECULE, CUTOFF, dtype=torch.float32)


def box() -> sk.NeighborGraph:
    """A jittered cubic lattice of oxygen with about NEIGHBORS neighbors each."""
    spacing = (4 / 3 * math.pi * CUTOFF**3 / NEIGHBORS) ** (1 / 3)
    lattice = torch.cartesian_prod(*[torch.arange(SIDE, dtype=torch.float64)] * 3)
    jitter = torch.rand(lattice.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cell = torch.eye(3) * spacing * SIDE
    places = spacing * (lattice + 0.3 * jitter)
    return sk.NeighborGraph.build(places, [8] * len(lattice), CUTOFF, cell=cell, pbc=True, dtype=torch.float32)


def graph_of(system: str) -> sk.NeighborGraph:
    """The graph of one of SYSTEMS."""
    return {"ethanol x8": lambda: ethanol(8), "aspirin-sized x1": molecule, "box x1": box}[system]()


def task(what: str, graph: sk.NeighborGraph, channels: int) -> tuple[Callable[[], Any], Callable[[], torch.Tensor]]:
    """A function that does one step, and one that gives what it computes, for comparison."""
    torch.manual_seed(0)
    model = sk.nn.SDAS([1, 6, 8], channels=channels, heads=HEADS, lmax=LMAX, layers=LAYERS, cutoff=CUTOFF)
    if what == "forces":
        model.eval().requires_grad_(False)
        return lambda: model(graph), lambda: model(graph)["forces"]
    target = torch.randn(graph.num_atoms, 3)
    weights: list[torch.Tensor] = list(model.parameters())
    averaged = list(copy.deepcopy(model).requires_grad_(False).parameters())
    optimizer = torch.optim.Adam(weights, lr=1e-4, fused=True)

    def gradient() -> torch.Tensor:
        optimizer.zero_grad()
        found = model(graph)
        loss = (found["forces"] - target).square().mean() + 1e-6 * found["energy"].square().mean()
        loss.backward()
        return torch.cat([w.grad.flatten() for w in weights if w.grad is not None])

    def step() -> None:
        gradient()
        torch.nn.utils.clip_grad_norm_(weights, 10.0, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 0.01)

    return step, gradient


@pytest.fixture(scope="module")
def report() -> Any:
    record.set_threads()
    rows: list[dict[str, Any]] = []
    yield rows
    unit = "milliseconds; ratios are reference / ours, [lower quartile, median, upper quartile]"
    record.write_result("training_step", rows, unit)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("what", ["forces", "training"])
def test_step(benchmark: Any, report: list[dict[str, Any]], what: str, size: tuple[str, int]) -> None:
    system, channels = size
    graph = graph_of(system)
    step, result = task(what, graph, channels)

    def by_reference(function: Callable[[], Any]) -> Any:
        with sk.use_backend("reference"):
            return function()

    wanted = by_reference(result)
    torch.testing.assert_close(result(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    rounds = 3 if system == "box x1" else 15
    functions = {"ours": step, "reference": lambda: by_reference(step)}
    times = benchmark.pedantic(record.in_turn, (functions, rounds), rounds=1)
    row: dict[str, Any] = {
        "task": what,
        "system": system,
        "atoms": graph.num_atoms,
        "edges": graph.num_edges,
        "channels": channels,
        "heads": HEADS,
        "lmax": LMAX,
        "layers": LAYERS,
        **{f"{name}_ms": round(1e3 * statistics.median(seconds), 3) for name, seconds in times.items()},
        "reference_over_ours": record.quartiles(times["reference"], times["ours"]),
    }
    benchmark.extra_info.update(row)
    report.append(row)
