"""Structures that two parts share are found by what they are, whatever their labels and sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdas.data import Frame
from sdas.data.duplicates import repeated


def frame(seed: int, pbc: bool = True) -> Frame:
    rng = np.random.default_rng(seed)
    cell = 8.0 * np.eye(3) + rng.normal(size=(3, 3))
    free = np.full(3, pbc)
    return Frame(np.array([8, 1, 1]), rng.normal(size=(3, 3)), cell, free, float(seed), None, None, f"{seed}")


SAME = {
    "another energy": lambda f: replace(f, energy=-1.0, source="elsewhere"),
    "the digits of a file": lambda f: replace(f, positions=f.positions + 1e-9),
}
OTHER = {
    "another element": lambda f: replace(f, numbers=np.array([9, 1, 1])),
    "another order": lambda f: replace(f, positions=f.positions[[0, 2, 1]]),
    "another place": lambda f: replace(f, positions=f.positions + np.array([1e-3, 0.0, 0.0])),
    "another cell": lambda f: replace(f, cell=f.cell * 1.001),
    "open space": lambda f: replace(f, pbc=np.zeros(3, dtype=bool)),
}


@pytest.mark.parametrize("change", SAME)
def test_the_same_structure_is_found(change):
    frames = [*map(frame, range(4)), SAME[change](frame(2)), frame(9)]
    assert repeated(frames, np.arange(4), np.array([4, 5])) == [4]


@pytest.mark.parametrize("change", OTHER)
def test_another_structure_is_not(change):
    frames = [*map(frame, range(4)), OTHER[change](frame(2))]
    assert repeated(frames, np.arange(4), np.array([4])) == []


def test_a_cell_without_periods_does_not_matter():
    frames = [frame(0, pbc=False), replace(frame(0, pbc=False), cell=None)]
    assert repeated(frames, np.array([0]), np.array([1])) == [1]
