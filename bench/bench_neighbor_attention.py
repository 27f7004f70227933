"""Claim: the fused attention layer trains many times faster, in far less memory, than its plain PyTorch reference.

One default layer on a periodic box of atoms; both backends run in turn within one process, and the figure is the median
of the ratios reference / ours with the quartiles. Results are compared before anything is timed.

    forward     the layer's features
    forces      features and the gradient by positions of their weighted sum
    training    forces, and the gradient of their square by all weights

Peak memory is what the process's resident set grows by in a step, measured in a process of its own for each backend.
The growth with edges is the exponent of time against edges between the smallest and the largest box.

Run: `make bench`, or this file by pytest; the result goes to bench/results/.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import record
import torch

import sdas_kernels as sk
from sdas_kernels.nn.geometry import EdgeGeometry

CUTOFF, NEIGHBORS, N_RADIAL = 5.0, 40, 8
SIZES = [  # atoms per edge of the box, channels, heads, lmax
    (5, 64, 32, 2),
    (10, 64, 32, 2),
    (10, 32, 32, 2),
    (10, 64, 64, 2),
    (10, 64, 32, 1),
    (5, 64, 32, 3),
]
TASKS = ("forward", "forces", "training")


def box(side: int, dtype: torch.dtype = torch.float32) -> sk.NeighborGraph:
    """A jittered cubic lattice of side³ atoms with about NEIGHBORS neighbors each."""
    spacing = (4 / 3 * math.pi * CUTOFF**3 / NEIGHBORS) ** (1 / 3)
    lattice = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
    jitter = torch.rand(lattice.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = spacing * (lattice + 0.3 * jitter)
    cell = torch.eye(3) * spacing * side
    return sk.NeighborGraph.build(positions, [8] * len(positions), CUTOFF, cell=cell, pbc=True, dtype=dtype)


def task(what: str, side: int, channels: int, heads: int, lmax: int) -> tuple[Callable[[], torch.Tensor], int]:
    """A function that does one step and returns what it computed, and the number of edges."""
    torch.manual_seed(0)
    graph = box(side)
    layer = sk.nn.SDASLayer(channels, lmax, heads=heads, n_radial=N_RADIAL)
    x = torch.randn(graph.num_atoms, (lmax + 1) ** 2, channels)
    weight = torch.randn_like(x)

    def step() -> torch.Tensor:
        with torch.set_grad_enabled(what != "forward"):
            positions = graph.positions.clone().requires_grad_(what != "forward")
            geometry = EdgeGeometry.from_vectors(graph.edge_vectors(positions), graph, lmax, N_RADIAL, CUTOFF)
            out = layer(x, geometry)
            if what == "forward":
                return out
            (forces,) = torch.autograd.grad((out * weight).sum(), positions, create_graph=what == "training")
            if what == "forces":
                return forces
            layer.zero_grad()
            forces.square().mean().backward()
            return torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])

    return step, graph.num_edges


def peak_bytes(backend: str, *arguments: Any) -> float:
    """Growth of the largest resident set in a first step; to be called in a fresh process."""
    record.set_threads()
    step, _ = task(*arguments)
    with sk.use_backend(backend) if backend == "reference" else sk.use_backend("cpp", *KERNELS):
        before = largest_resident_set()
        step()
        return largest_resident_set() - before


def largest_resident_set() -> float:
    """Bytes, of this program alone: what getrusage tells survives an exec."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


KERNELS = ("spherical_harmonics", "edge_softmax", "neighbor_tensor_product", "neighbor_attention")


def memory(backend: str, *arguments: Any) -> float:
    """MiB, from a process of its own."""
    code = f"import {Path(__file__).stem} as bench; print(bench.peak_bytes{(backend, *arguments)!r})"
    place = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", code], env=place, capture_output=True, text=True, check=True)
    return float(done.stdout) / 2**20


@pytest.fixture(scope="module")
def report() -> record.Results:
    record.set_threads()
    unit = "milliseconds, MiB; ratios are reference / ours, [lower quartile, median, upper quartile]"
    return record.Results("neighbor_attention", ("task", "side", "channels", "heads", "lmax"), unit)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("what", TASKS)
def test_layer(benchmark: Any, report: record.Results, what: str, size: tuple[int, int, int, int]) -> None:
    side, channels, heads, lmax = size
    arguments = (what, *size)
    step, edges = task(*arguments)

    def reference() -> torch.Tensor:
        with sk.use_backend("reference"):
            return step()

    torch.testing.assert_close(step(), reference(), rtol=1e-3, atol=1e-3 * reference().abs().max().item())
    rounds = 3 if what == "training" else 5
    times = benchmark.pedantic(record.in_turn, ({"ours": step, "reference": reference}, rounds), rounds=1)
    row: dict[str, Any] = {
        "task": what,
        "side": side,
        "atoms": side**3,
        "edges": edges,
        "channels": channels,
        "heads": heads,
        "lmax": lmax,
        **{f"{name}_ms": round(1e3 * statistics.median(seconds), 3) for name, seconds in times.items()},
        "reference_over_ours": record.quartiles(times["reference"], times["ours"]),
    }
    if side == max(size[0] for size in SIZES) and what == "training":
        row |= {f"{name}_peak_mib": round(memory(name, *arguments), 1) for name in ("ours", "reference")}
    benchmark.extra_info.update(row)
    report.append(row)
