"""The atoms that whole models are measured on, with the neighbor list that all of them get."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch

import sdas_kernels as sk

CUTOFF = 5.0
WATER_VOLUME = 29.92  # Å³ per molecule of the liquid, 0.9998 g/cm³

# A conformer of 2-acetyloxybenzoic acid, relaxed with the MMFF94 force field.
ASPIRIN = """
6  3.32 -0.60 -0.24    6  1.90 -0.63  0.26    8  1.59 -0.84  1.42    8  1.04 -0.39 -0.81    6 -0.30 -0.36 -0.42
6 -1.03 -1.53 -0.63    6 -2.38 -1.57 -0.29    6 -3.00 -0.45  0.26    6 -2.27  0.73  0.45    6 -0.91  0.79  0.10
6 -0.23  2.10  0.32    8 -0.73  3.06  0.87    8  1.02  2.17 -0.18    1  4.00 -0.76  0.59    1  3.53  0.37 -0.69
1  3.47 -1.41 -0.97    1 -0.55 -2.41 -1.05    1 -2.95 -2.49 -0.44    1 -4.05 -0.48  0.53    1 -2.77  1.60  0.87
1  1.29  3.09  0.04
"""

# The same of ethanol.
ETHANOL = """
6  0.88  0.18  0.13    6 -0.47 -0.51  0.04    8 -1.34  0.22 -0.81    1  0.77  1.19  0.52    1  1.56 -0.38  0.77
1  1.32  0.28 -0.87    1 -0.93 -0.58  1.03    1 -0.36 -1.52 -0.37    1 -1.44  1.11 -0.44
"""


def graph(name: str) -> sk.NeighborGraph:
    """`aspirin`; `N ethanol`, a batch of molecules; `N water`, `Bx N water`: B periodic boxes of N atoms. Float64."""
    found = re.fullmatch(r"(?:(\d+)x )?(?:(\d+) )?(aspirin|ethanol|water)", name)
    if found is None:
        raise ValueError(f"graph: wants such as '8 ethanol' or '2x 498 water', got {name!r}")
    boxes, count, molecule = found.groups()
    random = np.random.default_rng(0)
    if molecule == "water":
        drawn = [water(int(count) // 3, random) for _ in range(int(boxes or 1))]
        return sk.NeighborGraph.batch([sk.NeighborGraph.build(*box, dtype=torch.float64) for box in drawn])
    numbers, positions = _table(ASPIRIN if molecule == "aspirin" else ETHANOL)
    jittered = [positions + 0.03 * random.standard_normal(positions.shape) for _ in range(int(count or 1))]
    return sk.NeighborGraph.batch([sk.NeighborGraph.build(r, numbers, CUTOFF, dtype=torch.float64) for r in jittered])


def water(molecules: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, bool]:
    """Positions, numbers, cutoff, cell, periodic: molecules at the liquid's density, turned at random.

    Their oxygens lie on a jittered cubic lattice, so distances are a liquid's only roughly; the number of neighbors is.
    """
    side = (molecules * WATER_VOLUME) ** (1 / 3)
    n = math.ceil(molecules ** (1 / 3) - 1e-9)
    lattice = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = lattice[np.sort(random.permutation(n**3)[:molecules])]
    oxygens = (sites + random.uniform(-0.1, 0.1, sites.shape)) * side / n
    half, length = math.radians(104.5) / 2, 0.9572
    arms = length * np.array([[math.sin(half), math.cos(half), 0.0], [-math.sin(half), math.cos(half), 0.0]])
    turns = np.linalg.qr(random.standard_normal((molecules, 3, 3)))[0]
    hydrogens = oxygens[:, None] + np.einsum("nij,aj->nai", turns, arms)
    positions = np.concatenate([oxygens[:, None], hydrogens], 1).reshape(-1, 3)
    return positions, np.tile([8, 1, 1], molecules), CUTOFF, side * np.eye(3), True


def save(path: Path, found: sk.NeighborGraph) -> None:
    """What an adapter is given: atoms, cells, and edges by receiver, sender and whole cells between them."""
    np.savez(
        path,
        positions=found.positions,
        numbers=found.numbers,
        system=found.system,
        cells=found.cells,
        pbc=found.pbc,
        receivers=found.receivers,
        senders=found.senders,
        shifts=found.cell_shifts,
    )


def _table(rows: str) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(rows.split(), dtype=float).reshape(-1, 4)
    return values[:, 0].astype(int), values[:, 1:]
