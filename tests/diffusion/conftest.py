"""Walks whose diffusion constant is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from sdas.diffusion import Paths, nearest_steps

EDGE = 12.0


@pytest.fixture
def walk() -> Callable[..., np.ndarray]:
    """`walk(d, frames, atoms, interval_fs, seed)`: positions [T, n, 3] of a random walk of D = d Å²/ps."""

    def make(d=0.3, frames=200, atoms=100, interval_fs=100.0, seed=0) -> np.ndarray:
        generator = np.random.default_rng(seed)
        steps = generator.normal(0, np.sqrt(2 * d * interval_fs / 1000), (frames, atoms, 3))
        return generator.uniform(0, EDGE, (atoms, 3)) + np.cumsum(steps, axis=0)

    return make


@pytest.fixture
def paths_of() -> Callable[..., Paths]:
    """`paths_of(positions, interval_fs)`: of argon in a cube of 12 Å."""

    def make(positions: np.ndarray, interval_fs: float = 100.0) -> Paths:
        count = positions.shape[1]
        cells = np.broadcast_to(EDGE * np.eye(3), (len(positions), 3, 3))
        steps = nearest_steps(positions, cells)
        return Paths.of(steps, np.full(count, 18), np.full(count, 40.0), cells, interval_fs)

    return make


@pytest.fixture
def write_walk(tmp_path) -> Callable[..., str]:
    """`write_walk(name, positions, interval_fs)`: a file of frames that tell their times, unless None."""

    def make(name: str, positions: np.ndarray, interval_fs: float | None = 100.0, pbc: bool = True) -> str:
        frames = [Atoms("Ar" * len(each), each, cell=[EDGE] * 3, pbc=pbc) for each in positions]
        for row, frame in enumerate(frames):
            frame.info |= {} if interval_fs is None else {"time_fs": row * interval_fs}
        write(tmp_path / name, frames)
        return str(tmp_path / name)

    return make
