"""The state of a run on disk: enough to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ase import Atoms

from sdas.errors import SdasError
from sdas.files import write_atomically

STATE = "state.npz"


@dataclass(frozen=True)
class SavedState:
    """positions [n, 3] Å, momenta [n, 3] in ASE's units, after `step` steps.

    generator: state of the random generator. physics: `MDSettings.physics()`. system: `fingerprint` of the start.
    log_bytes, trajectory_bytes: lengths of the two files at that step; what was written later is cut off on resuming.
    """

    positions: np.ndarray
    momenta: np.ndarray
    step: int
    generator: dict[str, Any]
    physics: dict[str, Any]
    system: str
    log_bytes: int
    trajectory_bytes: int

    def save(self, folder: Path) -> None:
        """Write the state; the one before stays until this one is complete and on disk."""
        facts = json.dumps({key: value for key, value in vars(self).items() if key not in ("positions", "momenta")})
        arrays: dict[str, Any] = {"positions": self.positions, "momenta": self.momenta, "facts": np.array(facts)}
        write_atomically(folder / STATE, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, folder: Path) -> SavedState | None:
        """The state in `folder`, or None if there is none; raises SdasError if it cannot be read."""
        path = folder / STATE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["positions"], stored["momenta"], **json.loads(stored["facts"].item()))
        except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
            raise SdasError(f"{path}: cannot be read ({error}); start again with --fresh") from error


def fingerprint(atoms: Atoms) -> str:
    """Hash of elements, positions, cell and periodicity."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
