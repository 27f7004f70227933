"""The state of replicas on disk: enough to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from sdas.errors import SdasError
from sdas.md.faults import Verdict
from sdas.md.replicas import Replicas
from sdas.md.state import ADVICE, OTHER_FOLDER, Identity, Written, read_state, write_state

MOTION = ("positions", "cells", "velocities", "temperature", "heat")


@dataclass(frozen=True)
class ReplicaState:
    """arrays: of what runs and what has ended, by name. facts: the rest, as JSON holds it."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, replicas: Replicas, identity: list[Identity], log: Written, chunks: int) -> ReplicaState:
        """Of replicas as they are, whose log and trajectory were written so far."""
        motion = replicas.motion
        arrays = {
            "positions": motion.systems.positions,
            "cells": motion.systems.cells,
            "velocities": motion.velocities,
            "temperature": motion.temperature,
            "heat": motion.heat,
            **{f"own/{name}": value for name, value in motion.own.items()},
            **{f"results/{name}": value for name, value in replicas.results.items()},
        }
        for name in ("forces", "bias"):
            arrays |= {f"{name}/{key}": value for key, value in _variables(getattr(replicas, name)).items()}
        for replica, atoms in replicas.ended.items():
            arrays |= {f"ended/{replica}/positions": atoms.positions, f"ended/{replica}/cell": atoms.cell.array}
            arrays |= {f"ended/{replica}/momenta": atoms.get_momenta()}
        facts = {
            "step": replicas.step,
            "running": replicas.running,
            "generators": motion.noise.states(),
            "verdicts": [None if verdict is None else asdict(verdict) for verdict in replicas.verdicts],
            "identity": [asdict(each) for each in identity],
            "log": asdict(log),
            "chunks": chunks,
        }
        return cls({name: torch.as_tensor(value).cpu().numpy().copy() for name, value in arrays.items()}, facts)

    def save(self, folder: Path) -> None:
        """Write the state; the one before stays until this one is complete and on disk."""
        write_state(folder, self.arrays, self.facts)

    @classmethod
    def load(cls, folder: Path) -> ReplicaState | None:
        """The state in `folder`, or None if there is none; raises SdasError if it cannot be read."""
        return read_state(folder, cls._of_stored)

    @classmethod
    def _of_stored(cls, path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ReplicaState:
        if "chunks" not in facts or not set(MOTION) <= arrays.keys():
            raise SdasError(f"{path}: is no state of replicas: {OTHER_FOLDER}")
        return cls(arrays, facts)

    @property
    def log(self) -> Written:
        """How far the log was written."""
        return Written(**self.facts["log"])

    def check(self, present: list[Identity], folder: Path) -> None:
        """Raise SdasError if the run in `folder`, which this is of, cannot be continued as `present`."""
        before = [Identity(**each) for each in self.facts["identity"]]
        if len(before) != len(present):
            raise SdasError(f"{folder} holds a run of {len(before)} replicas, not {len(present)}: {ADVICE}")
        for ours, theirs in zip(before, present, strict=True):
            ours.check(theirs, folder)

    def restore(self, replicas: Replicas) -> None:
        """Put replicas, made as these were, into this state."""
        facts, arrays, start = self.facts, self.arrays, replicas.motion
        device = start.systems.device

        def tensor(name: str) -> torch.Tensor:
            return torch.from_numpy(arrays[name]).to(device)

        motion = start.rows(facts["running"])
        motion.systems.positions, motion.systems.cells = tensor("positions"), tensor("cells")
        motion.velocities, motion.temperature, motion.heat = map(tensor, ("velocities", "temperature", "heat"))
        motion.own = {name: tensor(f"own/{name}") for name in motion.own}
        motion.noise.restore(facts["generators"])
        for name in ("forces", "bias"):
            found = {key.removeprefix(f"{name}/"): tensor(key) for key in arrays if key.startswith(f"{name}/")}
            if found:
                getattr(replicas, name).load_state_dict(found)
        replicas.motion, replicas.step = motion, facts["step"]
        replicas.verdicts = [None if verdict is None else Verdict(**verdict) for verdict in facts["verdicts"]]
        ended = [replica for replica, verdict in enumerate(replicas.verdicts) if verdict is not None]
        replicas.ended = {replica: _ended(replicas, replica, arrays) for replica in ended}
        replicas.results = {key.removeprefix("results/"): tensor(key) for key in arrays if key.startswith("results/")}


def _variables(forces: Any) -> Mapping[str, torch.Tensor]:
    """What forces or a bias have learnt in the run."""
    found: Mapping[str, torch.Tensor] = forces.state_dict() if hasattr(forces, "state_dict") else {}
    return found


def _ended(replicas: Replicas, replica: int, arrays: Mapping[str, np.ndarray]) -> Atoms:
    made = replicas.start[replica].copy()
    made.set_constraint()
    made.cell[:] = arrays[f"ended/{replica}/cell"]
    made.positions[:] = arrays[f"ended/{replica}/positions"]
    made.set_momenta(arrays[f"ended/{replica}/momenta"])
    return made
