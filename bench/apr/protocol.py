"""What is compared: frames, splits, budgets, seeds and the search, the same for every model.

Frames of a task are written once as one file of arrays, which every model reads in an environment of its own: NumPy is
all that this module needs there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

CUTOFF = 5.0
"""Å, of every model: the same neighbours for all."""
BUDGETS = (0.3e12, 1e12, 3e12, 10e12)
"""Training FLOPs of a cell, forward, backward and optimizer."""
SEEDS = (0, 1)
"""Of weights and of the order of frames."""
SEARCH_TASK, SEARCH_BUDGET = "ethanol", 0.1e12
"""Where every model's recipe is sought; elsewhere nothing is tuned."""
RATES: dict[str, dict[str, float]] = {
    "sdas": {"adam": 5e-3, "muon": 1e-2},
    "sdas_paper": {"adam": 5e-3, "muon": 1e-2},
    "nequip": {"adam": 0.01, "muon": 0.01},
    "allegro": {"adam": 0.002, "muon": 0.01},
    "mace": {"adam": 0.01, "muon": 0.01},
    "equiformer": {"adam": 1e-3, "muon": 0.01},
    "transformer": {"adam": 1e-3, "muon": 0.01},
}
"""Models, and by optimizer the learning rate that the search goes around. Of ours: this library's defaults. NequIP: its
tutorial, its example of Muon. Allegro: its paper. MACE: its training command. Others: usual for their size. Muon, where
authors do not have it: NequIP's rate."""
FACTORS = (0.5, 1.0, 2.0)
"""Learning rates of the search, in units of that one."""
FURTHEST = 32.0
"""Where an optimizer's best rate is the last of its row, the search goes on, but no further than this."""
BATCH = 4
"""Frames per step. With 0.3 TFLOP, NequIP was tried with 8 too: worse, with each of its six recipes."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """Files below the data folder, and which frames train, validate and test.

    train, validation: how many frames of `files`, drawn by seed 0. test: how many of `test_files`, from the first;
    without `test_files` they are drawn from `files` too.
    """

    files: tuple[str, ...]
    train: int
    validation: int
    test: int
    test_files: tuple[str, ...] = ()


def _rmd17(molecule: str) -> Task:
    train, test = (f"rmd17/rmd17_{molecule}_{part}_01.npz" for part in ("train", "test"))
    return Task((train,), 950, 50, 1000, (test,))


TASKS = {
    **{molecule: _rmd17(molecule) for molecule in ("ethanol", "aspirin", "malonaldehyde", "uracil")},
    "3bpa": Task(("3bpa/train_300K.xyz",), 450, 50, 500, ("3bpa/train_mixedT.xyz",)),
    "water": Task(tuple(f"water/deepmd_pbe0/data_{i}" for i in range(3)), 300, 20, 80, ("water/deepmd_pbe0/data_3",)),
}
"""Split 01 of rMD17; 3BPA trained at 300 K and tested on mixed temperatures; 192 atoms of liquid water."""


@dataclass(frozen=True)
class Recipe:
    """optimizer: a name that the model's adapter knows. rate: largest learning rate. batch: frames per step."""

    optimizer: str
    rate: float
    batch: int


@dataclass(frozen=True)
class Cell:
    """One training: a model, a task, FLOPs, a seed, a recipe. `search`: whether it is part of the search."""

    model: str
    task: str
    budget: float
    seed: int
    recipe: Recipe
    search: bool = False

    @property
    def name(self) -> str:
        """Of the file with its result."""
        parts = [self.model, self.task, f"{self.budget / 1e12:g}tflop", f"seed{self.seed}"]
        if self.search:
            parts += [self.recipe.optimizer, f"{self.recipe.rate:g}", f"batch{self.recipe.batch}"]
        return "-".join(parts)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def search_cells(model: str) -> list[Cell]:
    """The first cells of the search of one model: every optimizer of `RATES` at three rates."""
    return [
        _search_cell(model, optimizer, rate * factor)
        for (optimizer, rate), factor in itertools.product(RATES[model].items(), FACTORS)
    ]


def further_cell(model: str, errors: Mapping[Recipe, float]) -> Cell | None:
    """Where the search goes on: beyond an optimizer's best rate, if it is the last that was tried; else None.

    errors: of the recipes that were tried, meV/Å.
    """
    for optimizer, usual in RATES[model].items():
        row = {recipe.rate: error for recipe, error in errors.items() if recipe.optimizer == optimizer}
        if not row:
            continue
        best = min(row, key=row.__getitem__)
        if best == max(row) and best < usual * FURTHEST:
            return _search_cell(model, optimizer, best * 2)
        if best == min(row) and best > usual / FURTHEST:
            return _search_cell(model, optimizer, best / 2)
    return None


def _search_cell(model: str, optimizer: str, rate: float) -> Cell:
    return Cell(model, SEARCH_TASK, SEARCH_BUDGET, SEEDS[0], Recipe(optimizer, rate, BATCH), search=True)


def frames_file(task: str, data: Path, folder: Path) -> Path:
    """The file of `write_frames` for a task in `folder`, written now unless it is there."""
    path = folder / f"{task}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_frames(TASKS[task], data, path)
    return path


def write_frames(task: Task, data: Path, target: Path) -> None:
    """The frames of a task as arrays: `{part}_positions` `[F, N, 3]` Å, `_energies` eV, `_forces` eV/Å, and edges.

    `numbers` `[N]` are the same in all frames; `cell` `[3, 3]` and `pbc` too. Edges of all frames of a part lie one
    after another, from `_edges[f]` on: `_receivers`, `_senders`, `_shifts` `[E, 3]`, by which the sender is moved.
    """
    from sdas.data import Frame, read_frames
    from sdas.files import write_atomically
    from sdas_kernels.neighbors import find_neighbors

    def read(names: tuple[str, ...]) -> list[Frame]:
        return [frame for name in names for frame in read_frames(data / name)]

    pool = read(task.files)
    order = np.random.default_rng(0).permutation(len(pool)).tolist()
    cut = task.train + task.validation
    rest = [pool[i] for i in order[cut:]] if not task.test_files else read(task.test_files)
    parts = {
        "train": [pool[i] for i in order[: task.train]],
        "validation": [pool[i] for i in order[task.train : cut]],
        "test": rest[: task.test],
    }
    first = pool[0]
    arrays: dict[str, Any] = {"numbers": first.numbers}
    for name, frames in parts.items():
        if any((frame.numbers != first.numbers).any() for frame in frames):
            raise ValueError(f"{task.files}: frames differ in their atoms")
        arrays[f"{name}_positions"] = np.stack([frame.positions for frame in frames])
        arrays[f"{name}_cells"] = np.stack([np.zeros((3, 3)) if f.cell is None else f.cell for f in frames])
        arrays[f"{name}_pbc"] = np.stack([frame.pbc for frame in frames])
        arrays[f"{name}_energies"] = np.array([frame.energy for frame in frames])
        arrays[f"{name}_forces"] = np.stack([frame.forces for frame in frames])
        found = [find_neighbors(f.positions, f.numbers, CUTOFF, f.cell, f.pbc) for f in frames]
        arrays[f"{name}_receivers"] = np.concatenate([edges.receivers.numpy() for edges in found])
        arrays[f"{name}_senders"] = np.concatenate([edges.senders.numpy() for edges in found])
        arrays[f"{name}_shifts"] = np.concatenate([edges.shifts.numpy() for edges in found])
        arrays[f"{name}_edges"] = np.cumsum([0, *(len(edges.receivers) for edges in found)])
    write_atomically(target, lambda file: np.savez(file, **arrays))
