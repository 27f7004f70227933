"""Frames whose labels are known without a calculation, made of those in ../shared/data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from ase.data import covalent_radii

from sdas.data import Frame
from sdas.data.graphs import graph_of

CUTOFF = 5.0
"""Of the pairs, Å."""
STIFFNESS, MOVED = 1.4, 0.08
"""Of every bond, 1/Å; and by how much atoms are moved, Å."""


def supercell(frame: Frame) -> Frame:
    """2 x 2 x 2 cells: energy times eight, the same forces and stress."""
    if frame.cell is None or frame.energy is None or frame.forces is None:
        raise SystemExit(f"{frame.source}: a supercell wants a cell, an energy and forces")
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) @ frame.cell
    return replace(
        frame,
        numbers=np.tile(frame.numbers, 8),
        positions=(corners[:, None] + frame.positions).reshape(-1, 3),
        cell=2 * frame.cell,
        energy=8 * frame.energy,
        forces=np.tile(frame.forces, (8, 1)),
    )


def pair_forces(frame: Frame) -> Frame:
    """The atoms moved at random, under pair potentials of Morse that end smoothly at 5 Å.

    A pair has its minimum at the sum of the covalent radii. Its depth is the geometric mean of two numbers, one of each
    element, drawn between 0.2 and 1 eV. So there is something to learn about every element.
    """
    depth = np.random.default_rng(0).uniform(0.2, 1.0, size=119)
    random = np.random.default_rng(int(1e6 * np.abs(frame.positions).sum()) % 2**32)
    moved = replace(frame, positions=frame.positions + random.normal(scale=MOVED, size=frame.positions.shape))
    graph = graph_of(moved, CUTOFF, torch.float64)
    vectors, i, j = (part.numpy() for part in (graph.edge_vectors(), graph.receivers, graph.senders))
    lengths = np.linalg.norm(vectors, axis=1)
    a, b = frame.numbers[i], frame.numbers[j]
    well, stretch = np.sqrt(depth[a] * depth[b]), np.exp(-STIFFNESS * (lengths - covalent_radii[a] - covalent_radii[b]))
    value, slope = well * (stretch**2 - 2 * stretch), 2 * STIFFNESS * well * (stretch - stretch**2)
    end = 0.5 * (1 + np.cos(np.pi * lengths / CUTOFF))
    slope = slope * end - value * 0.5 * np.pi / CUTOFF * np.sin(np.pi * lengths / CUTOFF)
    forces = np.zeros_like(frame.positions)
    np.add.at(forces, i, (slope / lengths)[:, None] * vectors)
    virial = 0.5 * np.einsum("ea,eb,e->ab", vectors, vectors, slope / lengths)
    volume = abs(np.linalg.det(moved.cell)) if moved.cell is not None else np.inf
    return replace(moved, energy=0.5 * float((value * end).sum()), forces=forces, stress=virial / volume)
