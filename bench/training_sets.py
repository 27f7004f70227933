"""Does one recipe train molecules and bulk alike? Errors after short runs on frames of 2 to 192 atoms, none tuned for.

    python bench/training_sets.py --data ../shared/data --out bench/results/training/sets.json [--only water si]
        [--set train.energy_weight=1] [--label "energy weight 1"]

Every set is one `sdas train` and one `sdas evaluate`, run as users run them, with the defaults of the package but for
the steps, the batch, the split and the seed. Cells that the file holds already are not run again. Beside each model
stands what no model gives: zero forces, and the energy per species fitted to the training frames.

The model of water is also compared with supercells of its test frames, of 1536 atoms. `supercells` trains on such cells
directly, on as many atoms as `water` sees. `pairs` has the structures of `mptrj` with forces of pairs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from made_frames import pair_forces, supercell

from sdas.data import Frame, read_frames, write_cache
from sdas.files import write_text


@dataclass(frozen=True)
class Set:
    """Files below the data folder, steps × frames of a run, and frames for training, validation and test. `made`: what
    each frame becomes before; `larger`: what test frames become for one more comparison."""

    files: tuple[str, ...]
    steps: int
    batch: int
    sizes: tuple[int, int, int]
    options: tuple[str, ...] = ()
    made: Callable[[Frame], Frame] | None = None
    larger: Callable[[Frame], Frame] | None = None


WATER = tuple(f"water/deepmd_pbe0/data_{i}" for i in range(4))

SETS = {
    "ethanol": Set(("rmd17/rmd17_ethanol_train_01.npz",), 2000, 8, (700, 50, 250), ("--units", "kcal/mol")),
    "aspirin": Set(("rmd17/rmd17_aspirin_train_01.npz",), 2000, 8, (700, 50, 250), ("--units", "kcal/mol")),
    "water": Set(WATER, 150, 2, (220, 20, 80), larger=supercell),
    "supercells": Set(WATER, 38, 1, (220, 5, 20), made=supercell),
    "slab": Set(("slab/AuMgO_test_solid.npz",), 150, 2, (35, 5, 10), ("--units", "eV")),
    "lips": Set(("lips/lips_devset.extxyz",), 150, 2, (140, 10, 50)),
    "si": Set(("si/sitraj.xyz",), 150, 2, (70, 10, 30)),
    "mptrj": Set(("mptrj/mptrj-random-1k.xyz",), 500, 8, (700, 50, 250)),
    "pairs": Set(("mptrj/mptrj-random-1k.xyz",), 500, 8, (700, 50, 250), made=pair_forces),
}

ERRORS = ("energy_mae_mev", "energy_mae_mev_per_atom", "force_mae_mev_per_ang", "stress_mae_mev_per_ang3")
LARGER = 20
"""Frames of a larger kind that are compared."""


def sdas(*arguments: str) -> None:
    """Run the command line of the package that is imported here; what it prints is shown if it fails."""
    done = subprocess.run([sys.executable, "-m", "sdas.cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"sdas {shlex.join(arguments)}\n{done.stdout}{done.stderr}")


def divide(frames: list[Frame], sizes: tuple[int, int, int]) -> dict[str, list[int]]:
    """Frames in a random order, those before the others whose elements no earlier frame holds, cut into the parts."""
    order = np.random.default_rng(0).permutation(len(frames)).tolist()
    seen: set[int] = set()
    first = []
    for index in order:
        elements = set(frames[index].numbers.tolist())
        if elements - seen:
            first.append(index)
            seen |= elements
    order = first + [index for index in order if index not in first]
    train, validation, test = sizes
    return {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation : train + validation + test],
    }


def without_model(frames: list[Frame], split: dict[str, list[int]]) -> dict[str, float]:
    """Mean absolute errors of zero forces (meV/Å) and of energies per species fitted to training frames (meV)."""
    species = sorted({int(z) for frame in frames for z in frame.numbers})
    counts = np.array([[np.count_nonzero(frame.numbers == z) for z in species] for frame in frames], float)
    energies = np.array([frame.energy for frame in frames])
    fitted = np.linalg.lstsq(counts[split["train"]], energies[split["train"]], rcond=None)[0]
    test = split["test"]
    forces = np.concatenate([np.abs(frames[i].forces).ravel() for i in test])
    return {
        "force_mae_mev_per_ang": 1e3 * float(forces.mean()),
        "energy_mae_mev": 1e3 * float(np.abs(counts[test] @ fitted - energies[test]).mean()),
    }


def errors_in(folder: Path) -> dict[str, float]:
    """Of an evaluation there."""
    found = json.loads((folder / "evaluation.json").read_text())
    return {error: round(found[error], 3 if "atom" in error else 2) for error in ERRORS if error in found}


def run(name: str, data: Path, settings: list[str], folder: Path) -> dict[str, object]:
    """One cell: train, evaluate on the test frames, and the errors without a model."""
    case = SETS[name]
    cache, run_dir = folder / f"{name}.cache", folder / name
    sdas("data", "convert", *(str(data / file) for file in case.files), "--to", str(cache), *case.options)
    frames = list(read_frames(cache))
    if case.made is not None:
        frames, cache = [case.made(frame) for frame in frames], folder / f"{name}-made.cache"
        write_cache(frames, cache)
    split, yaml = divide(frames, case.sizes), folder / f"{name}.yaml"
    (folder / "split.json").write_text(json.dumps(split))
    config = {
        "run_dir": str(run_dir),
        "data": {"path": str(cache), "split": {"method": "indices", "indices": str(folder / "split.json")}},
        "train": {"steps": case.steps, "batch_size": case.batch, "threads": 1},
    }
    yaml.write_text(json.dumps(config))
    began = time.monotonic()
    sdas("train", str(yaml), *(word for setting in settings for word in ("--set", setting)))
    wall_s = time.monotonic() - began
    sdas("evaluate", str(run_dir))
    summary = json.loads((run_dir / "summary.json").read_text())
    found = json.loads((run_dir / "evaluation.json").read_text())
    cell: dict[str, object] = {"model": errors_in(run_dir)}
    if case.larger is not None:
        write_cache([case.larger(frames[i]) for i in split["test"][:LARGER]], folder / "larger.cache")
        sdas("evaluate", str(run_dir), str(folder / "larger.cache"), "--out", str(folder / "larger"))
        cell["of its supercells"] = errors_in(folder / "larger")
    return cell | {
        "zero": {error: round(value, 2) for error, value in without_model(frames, split).items()},
        "atoms_per_frame": round(found["n_atoms"] / found["n_frames"], 1),
        "steps": case.steps,
        "batch_size": case.batch,
        "settings": settings,
        "train_flops": summary["train_flops"],
        "wall_s": round(wall_s, 1),
    }


def main() -> None:
    """Run the cells that the file of results lacks, and write it after each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    options.add_argument("--set", dest="settings", action="append", default=[])
    options.add_argument("--label", default="defaults")
    given = options.parse_args()
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.only:
        cells = results.setdefault(name, {})
        if given.label not in cells:
            with tempfile.TemporaryDirectory() as folder:
                cells[given.label] = run(name, given.data, given.settings, Path(folder))
            write_text(given.out, json.dumps(results, indent=1) + "\n")
        cell = cells[given.label]
        print(f"{name}, {given.label}: {cell['model']}, zero {cell['zero']}, {cell['wall_s']} s", flush=True)


if __name__ == "__main__":
    main()
