"""The state of a run on disk: enough to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from sdas.data.electronic_states import state_of_atoms
from sdas.data.readers.npz_stream import NpzStream
from sdas.errors import SdasError
from sdas.files import write_atomically
from sdas.md.constraints import described
from sdas.md.folder import STATE
from sdas.run.fingerprint import SHOWN

TAIL_BYTES = 4096
OTHER_FOLDER = "choose another folder"
ADVICE = f"{OTHER_FOLDER}, or start again with --fresh"
State = TypeVar("State")


@dataclass(frozen=True)
class Identity:
    """What a resumed run must share with the run that it continues.

    model: its fingerprint. dtype: of the calculation. system: hash of elements, positions, cell and periodicity of the
    start, and of its charge and spin if the model uses them. masses: u, one per atom. constraints: as `described`.
    physics: `MDSettings.physics()`.
    """

    model: str
    dtype: str
    system: str
    masses: list[float]
    constraints: list[dict[str, Any]]
    physics: dict[str, Any]

    @classmethod
    def of(cls, atoms: Atoms, model: str, dtype: str, physics: dict[str, Any]) -> Identity:
        """Of a run that starts from `atoms`, which carry the constraints and masses of the run."""
        digest = hashlib.sha256()
        for array in (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
        if state := state_of_atoms(atoms):
            digest.update(json.dumps(state, sort_keys=True).encode())
        masses = [float(mass) for mass in atoms.get_masses()]
        return cls(model, dtype, digest.hexdigest()[:16], masses, described(atoms.constraints), physics)

    def check(self, present: Identity, folder: Path) -> None:
        """Raise SdasError if the run in `folder`, which is ours, cannot be continued as `present`."""
        if self.model != present.model:
            raise SdasError(
                f"{folder} holds a trajectory of another model ({self.model[:SHOWN]}…) than this one "
                f"({present.model[:SHOWN]}…): {ADVICE}"
            )
        if self.system != present.system:
            raise SdasError(f"{folder} holds a run that began from another structure: {ADVICE}")
        for atom, (before, now) in enumerate(zip(self.masses, present.masses, strict=True)):
            if before != now:
                raise SdasError(f"{folder} holds a run in which atom {atom} weighs {before} u, not {now} u: {ADVICE}")
        if self.constraints != present.constraints:
            theirs, ours = json.dumps(self.constraints), json.dumps(present.constraints)
            raise SdasError(f"{folder} holds a run with the constraints {theirs:.300}, not {ours:.300}: {ADVICE}")
        stored = {"dtype": self.dtype, **self.physics}
        for name, value in {"dtype": present.dtype, **present.physics}.items():
            if stored.get(name) != value:
                raise SdasError(f"{folder} holds a run with {name} {stored.get(name)}, not {value}: {ADVICE}")


@dataclass(frozen=True)
class Written:
    """How far an output file was written, and the hash of its last bytes until there."""

    bytes: int
    tail: str

    @classmethod
    def of(cls, path: Path, length: int) -> Written:
        """Of a file up to `length`."""
        with open(path, "rb") as file:
            file.seek(max(0, length - TAIL_BYTES))
            return cls(length, hashlib.sha256(file.read(min(length, TAIL_BYTES))).hexdigest())

    def cut(self, path: Path) -> None:
        """Cut off what was written later; raises SdasError for a file that is shorter, or not the one it was."""
        present = path.stat().st_size if path.exists() else 0
        if present < self.bytes:
            raise SdasError(f"{path}: shorter than when the run was saved: {ADVICE}")
        if Written.of(path, self.bytes) != self:
            raise SdasError(f"{path}: changed since the run was saved: {ADVICE}")
        with open(path, "ab") as file:
            file.truncate(self.bytes)


@dataclass(frozen=True)
class SavedState:
    """positions [n, 3] Å, momenta [n, 3] in ASE's units, after `step` steps.

    generator: state of the random generator. log, trajectory: the two files at that step.
    """

    positions: np.ndarray
    momenta: np.ndarray
    step: int
    generator: dict[str, Any]
    identity: Identity
    log: Written
    trajectory: Written

    def save(self, folder: Path) -> None:
        """Write the state; the one before stays until this one is complete and on disk."""
        facts = {
            "step": self.step,
            "generator": self.generator,
            "identity": asdict(self.identity),
            "log": asdict(self.log),
            "trajectory": asdict(self.trajectory),
        }
        write_state(folder, {"positions": self.positions, "momenta": self.momenta}, facts)

    @classmethod
    def load(cls, folder: Path) -> SavedState | None:
        """The state in `folder`, or None if there is none; raises SdasError if it cannot be read."""
        return read_state(folder, cls._of_stored)

    @classmethod
    def _of_stored(cls, path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> SavedState:
        if "chunks" in facts:
            raise SdasError(f"{path}: is a state of replicas, not of one system: {OTHER_FOLDER}")
        if "identity" not in facts:
            raise SdasError(
                f"{path}: written by an earlier version, which noted neither the model nor the masses: {ADVICE}"
            )
        identity, positions, momenta = Identity(**facts["identity"]), arrays["positions"], arrays["momenta"]
        shape = (len(identity.masses), 3)
        if positions.shape != shape or momenta.shape != shape:
            raise ValueError(f"positions and momenta are not of {shape[0]} atoms")
        log, trajectory = Written(**facts["log"]), Written(**facts["trajectory"])
        return cls(positions, momenta, facts["step"], facts["generator"], identity, log, trajectory)


def write_state(folder: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write a state; the one before stays until this one is complete and on disk."""
    content: dict[str, Any] = {**arrays, "facts": np.array(json.dumps(facts))}
    write_atomically(folder / STATE, lambda file: np.savez(file, **content))


def read_state(folder: Path, make: Callable[[Path, dict[str, np.ndarray], dict[str, Any]], State]) -> State | None:
    """What `make` makes of the state in `folder`, of its path, arrays and facts; None if there is no state.

    Raises SdasError if it cannot be read, or `make` does not find in it what it wants.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with NpzStream(path) as stored:
            facts = json.loads(stored.text("facts") or "null")
            arrays = {name: stored.array(name).copy() for name in stored.names - {"facts"}}
        return make(path, arrays, facts)
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise SdasError(f"{path}: cannot be read ({error}): {ADVICE}") from error
