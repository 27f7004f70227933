"""Covalent bonds and torsions of a structure, and how well a score of pairs tells which pairs are bonded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from sdas.data import Frame

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

STRETCH = 1.3
"""Atoms are bonded that are closer than so many times the sum of their covalent radii."""


def atoms_of(frame: Frame) -> Any:
    """A frame as `ase.Atoms`, without its labels."""
    return Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc, info=frame.state)


def distances_of(frame: Frame) -> FloatArray:
    """Distances of all pairs `[n, n]` Å, to the nearest image."""
    found: FloatArray = atoms_of(frame).get_all_distances(mic=bool(frame.pbc.any()))
    return found


def bonds_of(frame: Frame) -> BoolArray:
    """Which pairs are covalently bonded, `[n, n]`, by covalent radii."""
    radii = covalent_radii[frame.numbers]
    bonded = distances_of(frame) < STRETCH * (radii[:, None] + radii)
    np.fill_diagonal(bonded, False)
    return bonded


def bonds_by_rdkit(frame: Frame) -> BoolArray | None:
    """The same by RDKit, `[n, n]`; None for a periodic frame, and where RDKit is not installed."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDetermineBonds
    except ImportError:
        return None
    if frame.pbc.any():
        return None
    lines = [f"{s} {x:.8f} {y:.8f} {z:.8f}" for s, (x, y, z) in zip(symbols(frame), frame.positions, strict=True)]
    with rdBase.BlockLogs():
        molecule = Chem.MolFromXYZBlock("\n".join([str(len(frame)), "", *lines]))
        rdDetermineBonds.DetermineConnectivity(molecule)
    return np.asarray(Chem.GetAdjacencyMatrix(molecule), dtype=bool)


def symbols(frame: Frame) -> list[str]:
    """Chemical symbols of the atoms."""
    return list(atoms_of(frame).get_chemical_symbols())


def angles_of(bonded: BoolArray) -> list[tuple[int, int, int]]:
    """All bond angles j–i–k, each once, as (j, i, k)."""
    neighbors = [np.flatnonzero(row).tolist() for row in bonded]
    return [(j, i, k) for i, near in enumerate(neighbors) for a, j in enumerate(near) for k in near[a + 1 :]]


def beyond(bonded: BoolArray, b: int, c: int) -> list[int] | None:
    """The atoms on the side of c when the bond b–c is cut, c included; None if a ring holds the sides together."""
    reached, new = {c}, [c]
    while new:
        atom = new.pop()
        for other in np.flatnonzero(bonded[atom]).tolist():
            if (atom, other) != (c, b) and other not in reached:
                reached.add(other)
                new.append(other)
    return None if b in reached else sorted(reached)


def torsions_of(numbers: Sequence[int], bonded: BoolArray) -> list[tuple[int, int, int, int]]:
    """A torsion a–b–c–d about every bond outside rings whose both ends go on, the heaviest atoms first.

    d is on the smaller side, which is the one that turns.
    """
    found = []
    for b, c in np.argwhere(np.triu(bonded)).tolist():
        side = beyond(bonded, b, c)
        if side is None:
            continue
        if 2 * len(side) > len(numbers):
            b, c = c, b
        ends = [[k for k in np.flatnonzero(bonded[x]).tolist() if k != y] for x, y in ((b, c), (c, b))]
        if all(ends):
            a, d = (max(end, key=lambda k: (numbers[k], -k)) for end in ends)
            found.append((a, b, c, d))
    return sorted(found, key=lambda t: (-sum(numbers[k] > 1 for k in t), t))


def roc_auc(score: FloatArray, positive: BoolArray) -> float | None:
    """Chance that a positive has a higher score than a negative, ties counted half; None if there is only one kind."""
    high, low = score[positive], np.sort(score[~positive])
    if not len(high) or not len(low):
        return None
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / 2 / len(low))
