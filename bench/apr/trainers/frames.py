"""Frames of one part of a task, and batches of them as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Frames:
    """`numbers` `[N]`, and by frame: positions `[F, N, 3]` Å, cells, pbc, energies eV, forces eV/Å, and their edges."""

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    receivers: np.ndarray
    senders: np.ndarray
    shifts: np.ndarray
    edges: np.ndarray

    @classmethod
    def read(cls, path: Path, part: str) -> Frames:
        """One part of a file of `protocol.write_frames`."""
        with np.load(path) as arrays:
            names = [name for name in cls.__dataclass_fields__ if name != "numbers"]
            return cls(arrays["numbers"], *(arrays[f"{part}_{name}"] for name in names))

    def __len__(self) -> int:
        return len(self.energies)

    def batch(self, indices: Sequence[int]) -> Arrays:
        """The frames as one system of many: atoms and edges one after another, `system` `[N]` tells which frame.

        The vector of an edge is position of sender + shift · cell − position of receiver.
        """
        n = len(self.numbers)
        parts = [slice(self.edges[i], self.edges[i + 1]) for i in indices]
        return {
            "numbers": np.tile(self.numbers, len(indices)),
            "positions": self.positions[indices].reshape(-1, 3),
            "cells": self.cells[indices],
            "pbc": self.pbc[indices],
            "system": np.repeat(np.arange(len(indices)), n),
            "receivers": np.concatenate([self.receivers[part] + k * n for k, part in enumerate(parts)]),
            "senders": np.concatenate([self.senders[part] + k * n for k, part in enumerate(parts)]),
            "shifts": np.concatenate([self.shifts[part] for part in parts]),
            "energies": self.energies[indices],
            "forces": self.forces[indices].reshape(-1, 3),
        }

    @property
    def force_rms(self) -> float:
        """Root mean square of force components, eV/Å."""
        return float(np.sqrt(np.square(self.forces).mean()))

    @property
    def energy_mean(self) -> float:
        """Mean energy per atom, eV."""
        return float(self.energies.mean() / len(self.numbers))

    @property
    def neighbors(self) -> float:
        """Mean number of neighbours of an atom."""
        return float(self.edges[-1] / (len(self) * len(self.numbers)))

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return tuple(int(z) for z in np.unique(self.numbers))
