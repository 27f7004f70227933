"""Where atoms went: positions over time that no cell cuts, about the center of mass.

paths, notes = read_paths("runs/mine/replicas")  # or runs/mine/md, or a file with the time between its frames
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from sdas.documents import read_older_document
from sdas.errors import SdasError
from sdas.md.folder import LOG, TRAJECTORY
from sdas.md.folder import SUMMARY as DYNAMICS_SUMMARY
from sdas.md.replica_run import SUMMARY as REPLICAS_SUMMARY
from sdas.md.trajectory import SYSTEMS, Trajectory
from sdas.run.folder import DYNAMICS, REPLICAS

REPLICA_FRAMES = "trajectory"
FARTHEST_STEP = 0.4
"""Of a cell vector, between two frames: from farther, the nearest image may be the wrong one."""
EVEN = 1e-3
"""Largest relative difference of the times between frames."""


@dataclass(frozen=True, eq=False)
class Paths:
    """positions: float64 [T, n, 3], Å, from where they began, less the motion of the center of mass of all atoms.

    numbers: [n]. cell: [3, 3], Å, the mean. interval_fs: between frames. source: the file or replica. breathing: the
    largest relative change of the cell.

    Taking away the center of mass lowers the diffusion constant of independent walkers by the factor 1 - 1/n.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    interval_fs: float
    source: str
    breathing: float = 0.0

    @classmethod
    def of(
        cls,
        steps: np.ndarray,
        numbers: np.ndarray,
        masses: np.ndarray,
        cells: np.ndarray,
        interval_fs: float,
        source: str = "steps",
    ) -> Paths:
        """Of what atoms moved from frame to frame `[T - 1, n, 3]` Å, in cells `[T, 3, 3]` Å.

        Raises SdasError: a number is not finite.
        """
        if not np.isfinite(steps).all():
            raise SdasError(f"{source}: a position is not finite")
        walked = np.concatenate([np.zeros((1, len(numbers), 3)), np.cumsum(steps, axis=0)])
        center = np.einsum("n,tnk->tk", masses / masses.sum(), walked)
        cell = cells.mean(axis=0)
        breathing = float(np.abs(cells - cell).max() / np.abs(cell).max())
        return cls(np.asarray(numbers), walked - center[:, None], cell, float(interval_fs), source, breathing)

    @property
    def length_fs(self) -> float:
        """From the first frame to the last."""
        return (len(self.positions) - 1) * self.interval_fs

    def after(self, skip_fs: float) -> Paths:
        """Without the first `skip_fs`; raises SdasError if nothing is left."""
        first = int(np.ceil(skip_fs / self.interval_fs - 1e-9))
        if skip_fs < 0 or first >= len(self.positions):
            raise SdasError(
                f"{self.source}: to skip must be 0 fs or more, and less than {self.length_fs:g} fs; got {skip_fs:g}"
            )
        return replace(self, positions=self.positions[first:])


TOO_SHORT = "one frame is no trajectory: run longer"
NOT_PERIODIC = (
    "not periodic along all three axes: atoms of a molecule in vacuum have no diffusion constant; give a trajectory of "
    "a periodic box"
)


def nearest_steps(positions: np.ndarray, cells: np.ndarray, source: str = "positions") -> np.ndarray:
    """What atoms moved from frame to frame `[T - 1, n, 3]`: to the nearest image, so positions may be wrapped or not.

    Args:
        positions: [T, n, 3] Å.
        cells: [T, 3, 3] Å.

    Raises:
        SdasError: a cell has no volume, or an atom moves so far that its way is not known.
    """
    if not (np.abs(np.linalg.det(cells)) > 0).all():
        raise SdasError(f"{source}: {NOT_PERIODIC}")
    turns = np.diff(positions, axis=0) @ np.linalg.inv(cells[1:])
    turns -= np.round(turns)
    farthest = float(np.abs(turns).max(initial=0.0))
    if farthest > FARTHEST_STEP:
        raise SdasError(
            f"{source}: an atom moves {farthest:.2f} of the cell between two frames; which way is not known where "
            "positions may be wrapped. Write frames more often"
        )
    return turns @ cells[1:]


def read_paths(path: str | Path, interval_fs: float | None = None) -> tuple[list[Paths], list[str]]:
    """The replicas of a trajectory, and notes on what was left out.

    Args:
        path: a folder that `sdas md` wrote, with or without replicas; a run directory that holds one; or a file of
            frames that ASE reads, as .extxyz and .traj.
        interval_fs: between the frames of a file that does not tell their times.

    Raises:
        SdasError: there is no trajectory, it is not periodic, the times are not known or uneven, or replicas differ.
    """
    place = Path(path)
    if not place.exists():
        raise SdasError(f"{place}: there is no such file or folder")
    if not place.is_dir():
        return [_of_file(place, interval_fs)], []
    folder = _folder_with_trajectory(place)
    if folder is None:
        raise SdasError(f"{place}: holds no trajectory: 'sdas md' writes one, or give a structure to start from")
    if _holds_replicas(folder):
        return _of_replicas(folder)
    return [_of_file(folder / TRAJECTORY, interval_fs)], []


def model_of(path: str | Path) -> str | None:
    """The fingerprint of the model that made a trajectory of `sdas md`; None where it is not told, as in a file."""
    folder = _folder_with_trajectory(Path(path))
    if folder is None:
        return None
    summary = folder / (REPLICAS_SUMMARY if _holds_replicas(folder) else DYNAMICS_SUMMARY)
    return read_older_document(summary).get("model") if summary.is_file() else None


def _folder_with_trajectory(place: Path) -> Path | None:
    for folder in (place, place / REPLICAS, place / DYNAMICS):
        if _holds_replicas(folder) or (folder / TRAJECTORY).is_file():
            return folder
    return None


def _holds_replicas(folder: Path) -> bool:
    return (folder / REPLICA_FRAMES / SYSTEMS).is_file()


def _of_replicas(folder: Path) -> tuple[list[Paths], list[str]]:
    trajectory = Trajectory(folder / REPLICA_FRAMES)
    if not trajectory.pbc.all():
        raise SdasError(f"{folder}: {NOT_PERIODIC}")
    log = np.loadtxt(folder / LOG, delimiter=",", skiprows=1, usecols=(0, 1), ndmin=2)
    step, time_fs = log[-1]
    if step == 0:
        raise SdasError(f"{folder}: {TOO_SHORT}")
    found = []
    for replica in range(len(trajectory)):
        frames, atoms = trajectory.frames(replica), slice(*trajectory.starts[replica : replica + 2].tolist())
        times = frames["steps"] * (time_fs / step)
        keep = _evenly(times)
        steps = np.diff(frames["positions"][:keep].astype(np.float64), axis=0)  # they are never wrapped
        masses, cells, interval = trajectory.masses[atoms], frames["cells"][:keep], _interval(times[:keep], str(folder))
        source = f"{folder}, replica {replica}"
        found.append(Paths.of(steps, trajectory.numbers[atoms], masses, cells, interval, source))
    return _alike(found)


def _evenly(times: np.ndarray) -> int:
    """How many of the times are evenly spaced: the last frame of a replica that ended may come early."""
    gaps = np.diff(times)
    return len(times) - int(len(gaps) > 1 and gaps[-1] < gaps[0] * (1 - EVEN))


def _alike(paths: list[Paths]) -> tuple[list[Paths], list[str]]:
    """Replicas of the same atoms and the same length; what ended early is left out."""
    longest = max(len(each.positions) for each in paths)
    kept = [each for each in paths if len(each.positions) == longest]
    for each in kept[1:]:
        if not np.array_equal(each.numbers, kept[0].numbers) or not np.allclose(each.cell, kept[0].cell, rtol=0.05):
            raise SdasError(f"{each.source}: other atoms or another cell than {kept[0].source}: analyze each by itself")
    left = [each.source for each in paths if len(each.positions) < longest]
    return kept, [f"{source} ended early and is left out" for source in left]


def _of_file(path: Path, interval_fs: float | None) -> Paths:
    try:
        frames: list[Atoms] = list(_frames(path))
    except SdasError:
        raise
    except Exception as error:  # ASE's parsers raise whatever their parsing meets
        raise SdasError(f"{path}: cannot be read: {error or type(error).__name__}") from error
    if not frames:
        raise SdasError(f"{path}: holds no frames")
    first = frames[0]
    for number, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, first.numbers):
            raise SdasError(f"{path}: frame {number} has other atoms than frame 0: a trajectory keeps its atoms")
        if not frame.pbc.all():
            raise SdasError(f"{path}: {NOT_PERIODIC}")
    times = np.array([frame.info.get("time_fs", np.nan) for frame in frames], dtype=float)
    told = bool(np.isfinite(times).all()) and len(frames) > 1
    interval = _interval(times, str(path)) if told else interval_fs
    if interval is None:
        raise SdasError(f"{path}: does not tell the time between frames: give it by --interval, in fs")
    if interval_fs is not None and not 0 < interval_fs < float("inf"):
        raise SdasError(f"the time between frames must be positive, got {interval_fs:g} fs")
    if interval_fs is not None and abs(interval - interval_fs) > EVEN * interval_fs:
        raise SdasError(f"{path}: its frames are {interval:g} fs apart as they say, not {interval_fs:g} fs")
    cells = np.stack([frame.cell.array for frame in frames])
    steps = nearest_steps(np.stack([frame.positions for frame in frames]), cells, str(path))
    return Paths.of(steps, first.numbers, first.get_masses(), cells, interval, str(path))


def _frames(path: Path) -> Iterable[Any]:
    return ase.io.iread(path.absolute(), index=":", do_not_split_by_at_sign=True)


def _interval(times: np.ndarray, source: str) -> float:
    """The time between frames; raises SdasError if it is not the same throughout."""
    gaps = np.diff(times)
    if len(gaps) == 0:
        raise SdasError(f"{source}: {TOO_SHORT}")
    if not gaps[0] > 0 or np.abs(gaps - gaps[0]).max() > EVEN * gaps[0]:
        raise SdasError(f"{source}: frames are {gaps.min():g} to {gaps.max():g} fs apart; wants them evenly spaced")
    return float(gaps.mean())
