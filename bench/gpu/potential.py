"""The whole SDAS potential on a GPU.

Claims: energy and forces of 10^5 atoms in at most 1 µs per atom; with a CUDA graph at least 1000 steps per second for a
molecule of 21 atoms, and for 1000 atoms.

    model       energy and forces, two layers
    training    the gradient of a force loss by all weights, and Adam's step
    graph       replays of the captured computation

Run: `python -m gpu.potential [PART ...]` with this folder's parent on the path, or `bench/gpu_node.sh`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench_neighbor_attention import CUTOFF, box
from gpu.measure import DEVICE, DRY, Report, chosen, end, memory_peak, milliseconds, off_by

import sdas_kernels as sk
from sdas_kernels.graph import NeighborGraph

CHANNELS = (4,) if DRY else (32, 64)
SIDES = (2,) if DRY else (10, 46)
TRAINING_SIDE = 2 if DRY else 22


def model_of(channels: int) -> sk.nn.SDAS:
    """Two layers, lmax 2, on the device."""
    torch.manual_seed(0)
    return sk.nn.SDAS([8], channels, heads=min(channels, 32), lmax=2, layers=2, cutoff=CUTOFF).to(DEVICE).eval()


def molecule() -> NeighborGraph:
    """21 atoms in a ball, as many as aspirin has, all of which see nearly all others."""
    random = torch.Generator().manual_seed(1)
    places = torch.cartesian_prod(*[torch.arange(3.0)] * 3)[:21] * 1.5
    positions = places + 0.2 * torch.rand(places.shape, generator=random)
    return NeighborGraph.build(positions, [8] * 21, CUTOFF, dtype=torch.float32, device=DEVICE)


def checked(channels: int) -> dict[str, float]:
    """Forces in float32 against those in float64 on the CPU by the reference."""
    model, graph = model_of(channels), box(2 if DRY else 5)
    with sk.use_backend("reference"):
        wanted = model_of(channels).double().cpu()(graph.to(dtype=torch.float64))["forces"]
    return {"off_by": off_by(model(graph.to(DEVICE))["forces"], wanted)}


def stepped(channels: int, side: int) -> dict[str, Any]:
    """Energy and forces of a box, the neighbors known."""
    model, graph = model_of(channels), box(side).to(DEVICE)
    found = milliseconds(lambda: model(graph))
    return {
        **found,
        "edges": graph.num_edges,
        "us_per_atom": round(1e3 * found["ms"] / graph.num_atoms, 4),
        **memory_peak(lambda: model(graph)),
    }


def trained(channels: int) -> dict[str, Any]:
    """A training step on forces."""
    model, graph = model_of(channels).train(), box(TRAINING_SIDE).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters())
    target = torch.randn_like(graph.positions)

    def step() -> None:
        optimizer.zero_grad()
        (model(graph)["forces"] - target).square().mean().backward()
        optimizer.step()

    found = milliseconds(step)
    atoms = graph.num_atoms
    return {**found, "atoms": atoms, "us_per_atom": round(1e3 * found["ms"] / atoms, 4), **memory_peak(step)}


def replayed(make: Callable[[], NeighborGraph]) -> dict[str, Any]:
    """Steps per second of the captured potential, new positions given on the device each step."""
    model, graph = model_of(CHANNELS[0]), make()
    captured = sk.nn.CapturedPotential(model, graph.num_atoms, graph.num_edges + graph.num_edges // 8)
    wanted = model(graph)["forces"]
    same = off_by(captured(graph)["forces"], wanted)
    eager = milliseconds(lambda: model(graph))["ms"]
    found = milliseconds(lambda: captured.step(graph.positions))
    return {
        **found,
        "steps_per_s": round(1e3 / found["ms"], 1),
        "eager_ms": eager,
        "off_by_eager": same,
        "atoms": graph.num_atoms,
        "edges": graph.num_edges,
        "captured": captured.captured,
    }


def main() -> None:
    parts = chosen("model", "graph", "training")
    report = Report("potential", "milliseconds")
    for channels in CHANNELS if "model" in parts else ():
        report.case(lambda c=channels: checked(c), what="model", step="checked", channels=channels)
        for side in SIDES:
            report.case(lambda c=channels, s=side: stepped(c, s), what="model", channels=channels, atoms=side**3)
    if "graph" in parts:
        report.case(lambda: replayed(molecule), what="graph", channels=CHANNELS[0])
        report.case(lambda: replayed(lambda: box(2 if DRY else 10).to(DEVICE)), what="graph", channels=CHANNELS[0])
    for channels in CHANNELS if "training" in parts else ():
        report.case(lambda c=channels: trained(c), what="training", channels=channels)
    end()


if __name__ == "__main__":
    main()
