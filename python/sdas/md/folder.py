"""The files of a run of dynamics, and whose they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from ase import Atoms
from ase.io.extxyz import write_extxyz

from sdas.data.errors import DataError
from sdas.data.readers.npz_stream import NpzStream
from sdas.errors import SdasError
from sdas.files import errors_naming, new_folder, recover, sweep
from sdas.md.constraints import described, is_in_the_move_mask
from sdas.run.folder import LOCK
from sdas.run.lock import locked

LOG, TRAJECTORY, SUMMARY, STATE = "log.csv", "trajectory.extxyz", "md.json", "state.npz"
COLUMNS = ("step", "time_fs", "potential_ev", "kinetic_ev", "total_ev", "temperature_k")
HEADER = ",".join(COLUMNS) + "\n"
FILES = frozenset({LOG, TRAJECTORY, SUMMARY, STATE})
FRAME_COLUMNS = ["symbols", "positions", "masses", "momenta", "move_mask"]
FRAME_UNITS = {"masses_unit": "u", "momenta_unit": "sqrt(u*eV)"}
"""ASE's: (momentum)² / mass is in eV."""
State = TypeVar("State")


@contextmanager
def run_in(
    folder: Path,
    fresh: bool,
    load: Callable[[Path], State | None],
    begin: Callable[[Path], None],
    header: str = HEADER,
    files: Collection[str] = FILES,
) -> Iterator[State]:
    """The state from which the run in `folder` goes on, while no other process may write there.

    Where `load` finds none, and with `fresh`, `begin` writes a new run, which takes the folder's place in one step.
    Raises SdasError, see :func:`check_folder`.
    """
    with ExitStack() as locks:
        recover(os.path.realpath(folder))
        locks.enter_context(locked(folder))
        check_folder(folder, fresh, header, files)
        state = None if fresh else load(folder)
        if state is None:
            with new_folder(folder) as place:
                locks.enter_context(locked(place))
                begin(place)
            state = load(folder)
            assert state is not None
        with errors_naming(folder):
            yield state


def check_folder(folder: Path, fresh: bool, header: str = HEADER, files: Collection[str] = FILES) -> None:
    """Raise SdasError if a run in `folder`, or with `fresh` a new one in its place, would harm files of others.

    A run has these `files`, and a log that begins with this `header`. What killed processes left of unfinished files
    and runs is removed.
    """
    sweep(folder)
    place = Path(os.path.realpath(folder))
    sweep(place.parent, place.name)
    names = sorted(set(os.listdir(folder)) - {LOCK})
    is_run = STATE in names and _is_ours(folder, header)
    foreign = [name for name in names if not is_run or name not in files]
    if foreign and (fresh or not is_run):
        raise SdasError(f"{folder} holds {foreign[0]}, which no run of dynamics wrote there: choose another folder")


def _is_ours(folder: Path, header: str) -> bool:
    """Whether the log, or the state if the log is lost, is of a run."""
    try:
        with open(folder / LOG, "rb") as file:
            if file.read(len(header)) == header.encode():
                return True
    except FileNotFoundError:
        pass
    try:
        with NpzStream(folder / STATE) as stored:
            return "facts" in stored.names
    except (DataError, OSError):
        return False


def write_frame(file: IO[str], atoms: Atoms, facts: dict[str, Any]) -> None:
    """A frame of extended XYZ, whose kinetic energy and constraints ASE reads back.

    Atoms that are fixed are in the column `move_mask`; `constraints` in the comment line holds other constraints as
    ASE's `dict2constraint` takes them. Of the info of the atoms, charge and spin are kept.
    """
    others = [constraint for constraint in atoms.constraints if not is_in_the_move_mask(constraint)]
    state = {name: value for name, value in atoms.info.items() if name in ("charge", "spin")}
    atoms.info = {**facts, **state, **FRAME_UNITS, **({"constraints": described(others)} if others else {})}
    write_extxyz(file, [atoms], columns=FRAME_COLUMNS, write_results=True)


def read_log(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Columns of log.csv by name, each `[T]`."""
    return read_columns(folder, COLUMNS)


def read_columns(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The same of a log with columns of these names."""
    table = np.loadtxt(Path(folder) / LOG, delimiter=",", skiprows=1, ndmin=2)
    return dict(zip(names, table.T, strict=True))
