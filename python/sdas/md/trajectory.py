"""The trajectory of replicas: numbered chunks of frames, each a small .npz file that appears whole or not at all.

    frames = Trajectory("out/trajectory").frames(3)        # arrays of replica 3
    Trajectory("out/trajectory").write(3, "three.extxyz")  # or .traj: anything that ASE writes

    systems.npz      numbers [N], masses [N] u, pbc [B, 3], starts [B + 1] and states (charge and spin) of all replicas
    00000.npz, …     steps [T], replicas [R], starts [R + 1], positions [T, n, 3] Å and momenta [T, n, 3] in ASE's unit,
                     both float32, cells [T, R, 3, 3] Å and energies [T, R] eV, float64

Positions are never wrapped into the cell. The replicas of a chunk are those that ran then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.data.readers.npz_stream import NpzStream
from sdas.errors import SdasError
from sdas.files import write_atomically
from sdas.md.folder import write_frame
from sdas.md.replicas import Replicas
from sdas.md.systems import Systems

SYSTEMS = "systems.npz"
PER_FRAME = ("steps", "positions", "momenta", "cells", "energies")
LARGEST = 64 << 20
"""Bytes of positions after which a chunk is written, however soon."""


class TrajectoryWriter:
    """Collects frames of what runs, and writes them as chunks into `folder`.

    Args:
        chunks: how many are there already; later ones are removed, as a run goes on from the end of these.
    """

    def __init__(self, folder: Path, chunks: int = 0) -> None:
        self.folder, self.chunks = folder, chunks
        self._frames: dict[str, list[np.ndarray]] = {name: [] for name in PER_FRAME}
        self._of: dict[str, np.ndarray] = {}
        for number, path in _chunks(folder):
            if number >= chunks:
                path.unlink()
        missing = chunks - len(_chunks(folder))
        if missing > 0:
            raise SdasError(f"{folder}: {missing} of {chunks} chunks of the trajectory are not there")

    def begin(self, systems: Systems) -> None:
        """Write what does not change."""
        self.folder.mkdir(exist_ok=True)
        _save(
            self.folder / SYSTEMS,
            numbers=systems.numbers.cpu().numpy(),
            masses=systems.masses.cpu().numpy(),
            pbc=systems.pbc.cpu().numpy(),
            starts=np.array(systems.starts),
            states=np.array(json.dumps(systems.states)),
        )

    def add(self, replicas: Replicas) -> None:
        """A frame of all replicas that run."""
        systems = replicas.motion.systems
        self._add(
            replicas.step,
            replicas.running,
            systems.starts,
            positions=systems.positions,
            momenta=replicas.motion.velocities * systems.masses[:, None],
            cells=systems.cells,
            energies=replicas.results["energy"],
        )

    def add_ended(self, replica: int, step: int, atoms: Atoms) -> None:
        """The last frame of a replica that has ended."""
        energy = np.nan if atoms.calc is None else atoms.calc.results["energy"]
        parts = {"positions": atoms.positions, "momenta": atoms.get_momenta(), "cells": atoms.cell.array[None]}
        self._add(step, [replica], [0, len(atoms)], **parts, energies=np.array([energy]))

    def _add(self, step: int, replicas: list[int], starts: list[int], **parts: object) -> None:
        if self._of and replicas != self._of["replicas"].tolist():
            self.flush()
        self._of = {"replicas": np.array(replicas, dtype=np.int64), "starts": np.array(starts)}
        self._frames["steps"].append(np.array(step))
        for name, values in parts.items():
            kind = np.float32 if name in ("positions", "momenta") else np.float64
            self._frames[name].append(torch.as_tensor(values).cpu().numpy().astype(kind))  # a copy
        if len(self._frames["steps"]) * self._frames["positions"][0].nbytes > LARGEST:
            self.flush()

    def flush(self) -> None:
        """Write what was collected as a chunk."""
        if self._frames["steps"]:
            arrays = {name: np.stack(values) for name, values in self._frames.items()}
            _save(self.folder / f"{self.chunks:05d}.npz", **arrays, **self._of)
            self.chunks += 1
        self._frames, self._of = {name: [] for name in PER_FRAME}, {}


class Trajectory:
    """Reads the trajectory in a folder, of a run that is finished or still goes on.

    Args:
        folder: `trajectory` in the folder of the run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / SYSTEMS).is_file():
            raise SdasError(f"{self.folder}: no trajectory of replicas ({SYSTEMS} is missing)")
        with NpzStream(self.folder / SYSTEMS) as stored:
            self.numbers, self.masses = stored.array("numbers"), stored.array("masses")
            self.pbc, self.starts = stored.array("pbc"), stored.array("starts")
            self.states: list[dict[str, float]] = json.loads(stored.text("states") or "[]")

    def __len__(self) -> int:
        """How many replicas there are."""
        return len(self.pbc)

    def frames(self, replica: int) -> dict[str, np.ndarray]:
        """Of one replica: steps [T], positions and momenta [T, n, 3], cells [T, 3, 3], energies [T]."""
        if not 0 <= replica < len(self):
            raise SdasError(f"{self.folder}: there is no replica {replica}; there are {len(self)}")
        found: dict[str, list[np.ndarray]] = {name: [] for name in PER_FRAME}
        for _, path in _chunks(self.folder):
            with NpzStream(path) as stored:
                running = stored.array("replicas").tolist()
                if replica not in running:
                    continue
                row = running.index(replica)
                atoms = slice(*stored.array("starts")[row : row + 2].tolist())
                found["steps"].append(stored.array("steps"))
                for name in ("positions", "momenta"):
                    found[name].append(stored.array(name)[:, atoms])
                for name in ("cells", "energies"):
                    found[name].append(stored.array(name)[:, row])
        if not found["steps"]:
            raise SdasError(f"{self.folder}: no frame of replica {replica} was written yet")
        return {name: np.concatenate(arrays) for name, arrays in found.items()}

    def atoms(self, replica: int) -> Iterator[Atoms]:
        """Structures of ASE, with momenta and, where it is known, the energy; `info["step"]` counts."""
        frames, span = self.frames(replica), slice(*self.starts[replica : replica + 2].tolist())
        for row, step in enumerate(frames["steps"].tolist()):
            made = Atoms(
                self.numbers[span],
                frames["positions"][row],
                cell=frames["cells"][row],
                pbc=self.pbc[replica],
                masses=self.masses[span],
                momenta=frames["momenta"][row],
                info={"step": step, **self.states[replica]},
            )
            if np.isfinite(frames["energies"][row]):
                made.calc = SinglePointCalculator(made, energy=float(frames["energies"][row]))
            yield made

    def write(self, replica: int, path: str | os.PathLike[str]) -> None:
        """All frames of a replica as one file: extended XYZ, ASE's .traj, or what else ASE knows by its ending."""
        if Path(path).suffix in (".extxyz", ".xyz"):
            with open(path, "w") as file:
                for frame in self.atoms(replica):
                    write_frame(file, frame, dict(frame.info))
        else:
            ase.io.write(os.fspath(path), list(self.atoms(replica)))


def _chunks(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of every chunk, in order."""
    return sorted((int(path.stem), path) for path in folder.glob("[0-9]*.npz") if path.stem.isdigit())


def _save(path: Path, **arrays: Any) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))
