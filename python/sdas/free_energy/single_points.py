"""Energies of a reference for frames that a model has made: what :mod:`sdas.free_energy.reweighting` needs.

Frames are drawn from the later half of the dynamics, in which the bias hardly changes: of each bin as many, as far
apart in time as can be. The oracle's labels are kept as they come, so a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from ase import Atoms
from tqdm import tqdm

from sdas.config.label import ResourcesConfig, parse_oracle
from sdas.data.frame import Frame
from sdas.errors import LabelError, SdasError
from sdas.free_energy.bias import WangLandauBias
from sdas.free_energy.oracle import frame_of
from sdas.free_energy.reweighting import Reweighting, reweight
from sdas.label.labelling import label_frames
from sdas.label.oracle import Failure, Label, make_oracle
from sdas.label.store import LabelStore
from sdas.md.replicas import Replicas
from sdas.md.systems import Systems
from sdas.md.trajectory import Trajectory

LABELS = "labels"
STRETCHES = 10
"""Into which the drawn half of a replica's dynamics is cut for error bars."""
AT_A_TIME = 256
"""Frames in one call of the model."""


@dataclass(frozen=True, eq=False)
class Energies:
    """values: eV `[frames]`, NaN where there is none. seconds: that they took. notes: sentences."""

    values: np.ndarray
    seconds: float
    notes: list[str]


@runtime_checkable
class Reference(Protocol):
    """What gives single energies. labels: how many frames of each bin it is asked for."""

    labels: int

    @property
    def name(self) -> str:
        """As results show it."""
        ...

    def check(self, frame: Frame) -> None:
        """Raise SdasError, before any dynamics, for a start that no energy can be had of."""
        ...

    def energies(self, frames: Sequence[Frame], folder: Path, progress: bool) -> Energies:
        """Of frames; what is to be kept goes into the folder."""
        ...


@dataclass
class SinglePoints:
    """An oracle of `sdas label`.

    Args:
        word: as `--oracle` there, such as tblite:GFN2-xTB.
        labels: frames of each bin.
        settings: of the oracle.
        resources: workers and the like.

    Raises SdasError for an oracle that there is none of here.
    """

    word: str
    labels: int = 50
    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise SdasError(f"labels of each bin must be 1 at least, got {self.labels}")
        self.config = parse_oracle(self.word, self.settings)
        self._oracle = make_oracle(self.config, self.resources.memory_mib)

    @property
    def name(self) -> str:
        """The word."""
        return self.word

    def check(self, frame: Frame) -> None:
        """Raise SdasError for elements, charge or spin that it cannot compute."""
        self._oracle.prepared(frame)

    def energies(self, frames: Sequence[Frame], folder: Path, progress: bool) -> Energies:
        """Labels from the store in the folder, and new ones where it has none. Raises SdasError if all fail."""
        with (
            LabelStore.open(folder / LABELS) as store,
            tqdm(total=len(frames), desc="label", unit="frame", disable=None if progress else True) as bar,
        ):
            done = label_frames(frames, self.config, store, self.resources, progress=bar.update)
        failures = [each for each in done.outcomes if isinstance(each, Failure)]
        notes, labels = done.notes(), [each for each in done.outcomes if isinstance(each, Label)]
        if not labels:
            raise LabelError(f"{self.word} labels no frame; the first: {failures[0].kind}: {failures[0].reason}")
        if failures:
            notes.append(
                f"{len(failures)} of {len(frames)} frames have no label and are left out; the first: "
                f"{failures[0].kind}: {failures[0].reason}"
            )
        values = np.array([each.energy if isinstance(each, Label) else np.nan for each in done.outcomes])
        return Energies(values, sum(float(each.facts.get("seconds", 0)) for each in labels), notes)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Frames of the model: their energies by it, eV, their bins, counted through all axes, and their stretches."""

    frames: list[Frame]
    energies: np.ndarray
    bins: np.ndarray
    stretches: np.ndarray


def start_frame(atoms: Atoms) -> Frame:
    """The start of replicas."""
    return replace(frame_of(Systems.of([atoms]), 0), source="the start")


def draw(replicas: Replicas, bias: WangLandauBias, trajectory: Trajectory, labels: int) -> Drawn:
    """Up to so many frames of each bin, of replicas that have not ended; raises SdasError if there is none."""
    half, places, bins = replicas.step / 2, list[tuple[int, int]](), [np.empty(0, dtype=int)]
    for replica in replicas.running:
        late = [each for each in trajectory.atoms(replica) if each.info["step"] > half]
        places += [(replica, each.info["step"]) for each in late]
        bins += [_bins(bias, late[start : start + AT_A_TIME]) for start in range(0, len(late), AT_A_TIME)]
    of_all = np.concatenate(bins)
    of_each = [_apart(np.flatnonzero(of_all == each), labels) for each in np.unique(of_all[of_all >= 0])]
    if not of_each:
        raise SdasError("no frame of the later half of the dynamics lies within the range: run longer")
    chosen = np.sort(np.concatenate(of_each))
    wanted = [places[row] for row in chosen]
    atoms = _found(trajectory, wanted)
    frames, energies = list[Frame](), list[np.ndarray]()
    for start in range(0, len(atoms), AT_A_TIME):
        systems = Systems.of(atoms[start : start + AT_A_TIME], replicas.motion.systems.device)
        energies.append(replicas.forces(systems)["energy"].cpu().numpy())
        frames += [frame_of(systems, row) for row in range(len(systems))]
    told = [
        replace(frame, source=f"step {step} of replica {replica}")
        for (replica, step), frame in zip(wanted, frames, strict=True)
    ]
    of_replica, steps = np.array(wanted).T
    stretches = of_replica * STRETCHES + np.ceil((steps / half - 1) * STRETCHES).astype(int)
    return Drawn(told, np.concatenate(energies), of_all[chosen], stretches)


def reweighted(drawn: Drawn, energies: Energies, shape: Sequence[int], thermal_ev: float) -> Reweighting:
    """What the drawn frames say of the reference. shape: bins of each axis. thermal_ev: k_B T."""
    known = np.isfinite(energies.values)
    work = (energies.values - drawn.energies)[known] / thermal_ev
    return reweight(work, drawn.bins[known], drawn.stretches[known], shape)


def _found(trajectory: Trajectory, places: list[tuple[int, int]]) -> list[Atoms]:
    """The frames of these replicas and steps, which are in order."""
    wanted = set(places)
    replicas = sorted({replica for replica, _ in places})
    return [
        atoms for replica in replicas for atoms in trajectory.atoms(replica) if (replica, atoms.info["step"]) in wanted
    ]


def _bins(bias: WangLandauBias, atoms: list[Atoms]) -> np.ndarray:
    """Of frames, counted through all axes; −1 outside of the range."""
    index, inside = bias.bins_of(bias.values(Systems.of(atoms)).detach())
    flat = torch.zeros_like(index[0])
    for axis, place in zip(bias.axes, index, strict=True):
        flat = flat * axis.bins + place
    return torch.where(inside, flat, -1).numpy()


def _apart(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
