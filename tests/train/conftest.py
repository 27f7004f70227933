"""A small labeled data set with a known potential, and configurations that train on it in a moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdas.config import Config, parse_config
from sdas.data import Frame, write_cache

SHIFTS = {1: -13.6, 8: -2041.0}


def labeled(positions: np.ndarray, numbers: np.ndarray, name: str) -> Frame:
    """A frame under pair springs of 2 eV/Å² towards 1.2 Å, and an energy per species."""
    vectors = positions[:, None] - positions[None]
    lengths = np.linalg.norm(vectors, axis=-1) + np.eye(len(numbers))
    stretch = (lengths - 1.2) * (1 - np.eye(len(numbers)))
    forces = -4.0 * (stretch / lengths)[..., None] * vectors / 2
    energy = 0.5 * float(np.square(stretch).sum()) + sum(SHIFTS[int(z)] for z in numbers)
    return Frame(numbers, positions, None, np.zeros(3, bool), energy, forces.sum(1), None, name)


def make_frames(count: int, seed: int = 0) -> list[Frame]:
    """Molecules of two to four atoms, of oxygen and hydrogen."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0, 0, 0], [1.1, 0, 0], [0.5, 1.0, 0], [0.5, 0.4, 0.9]])
    frames = []
    for k in range(count):
        n = 2 + k % 3
        numbers = np.array([8, 1, 1, 8][:n], dtype=np.int64)
        frames.append(labeled(corners[:n] + 0.15 * rng.normal(size=(n, 3)), numbers, f"frame {k}"))
    return frames


def charged(frame: Frame, charge: float) -> Frame:
    """The same atoms in a state of that charge: its sign adds 0.4 Å to the length of every spring, and 3 eV."""
    vectors = frame.positions[:, None] - frame.positions[None]
    lengths = np.linalg.norm(vectors, axis=-1) + np.eye(len(frame))
    stretch, longer = (lengths - 1.2) * (1 - np.eye(len(frame))), 0.4 * np.sign(charge) * (1 - np.eye(len(frame)))
    energy = frame.energy + 0.5 * float(((stretch - longer) ** 2 - stretch**2).sum()) + 3.0 * np.sign(charge)
    forces = frame.forces + 2.0 * ((longer / lengths)[..., None] * vectors).sum(1)
    return replace(frame, energy=energy, forces=forces, charge=charge, source=f"{frame.source}, charge {charge:g}")


@pytest.fixture
def charged_frames():
    """Forty frames, every molecule neutral and with a charge of +1."""
    return [charged(frame, charge) for frame in make_frames(20) for charge in (0.0, 1.0)]


@pytest.fixture(scope="session")
def cache_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "frames"
    write_cache(make_frames(40), path)
    return path


@pytest.fixture(scope="session")
def other_cache_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "other"
    write_cache(make_frames(40, seed=5), path)
    return path


def make_mixed_frames(count: int) -> list[Frame]:
    """In turn without forces; without energy; in a large cell, with a stress; with both labels and half the weight."""
    cell, box = 20.0 * np.eye(3), {"cell": 20.0 * np.eye(3), "pbc": np.ones(3, bool)}
    frames = []
    for k, frame in enumerate(make_frames(count, seed=7)):
        stress = -(frame.forces.T @ frame.positions) / np.linalg.det(cell)
        changes = [{"forces": None}, {"energy": None}, {**box, "stress": (stress + stress.T) / 2}, {"weight": 0.5}]
        frames.append(replace(frame, **changes[k % 4]))
    return frames


@pytest.fixture(scope="session")
def mixed_cache_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "mixed"
    write_cache(make_mixed_frames(40), path)
    return path


@pytest.fixture
def make_config(tmp_path, cache_path):
    """A function of overrides for the section train, run_dir and data, giving a small configuration."""

    def make(run: str = "run", data: dict | None = None, **train) -> Config:
        settings = {
            "steps": 12,
            "batch_size": 4,
            "optimizer": "adam",
            "learning_rate": 1e-2,
            "loss": "squared",
            "ema_decay": 0.9,
            "validate_every": 6,
            "checkpoint_every": 6,
            "threads": 1,
            "dtype": "float64",
            "device": "cpu",
        }
        if "minutes" in train:
            del settings["steps"]
        content = {
            "run_dir": str(tmp_path / run),
            "data": {"path": str(cache_path), "split": {"sizes": [24, 8, 8]}, **(data or {})},
            "model": {"channels": 4, "heads": 2, "lmax": 1, "layers": 1, "cutoff": 3.0, "n_radial": 3},
            "train": {**settings, **train},
        }
        return parse_config(content, "test")

    return make


@pytest.fixture
def molecules():
    """The function that makes frames of molecules."""
    return make_frames
