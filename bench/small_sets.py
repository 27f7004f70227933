"""How good is a model of few frames, and beyond the temperature of its frames?

    python bench/small_sets.py --data ../shared/data [--only ethanol] [--minutes 2]

ethanol, aspirin: 50 frames of rMD17 train, all 1000 test frames of the split test. 3bpa: 440 frames at 300 K train; 50
others test, and the 500 of mixed temperatures (300, 600 and 1200 K), none of which trained. One seed; the recipe of
`sdas demo`, nothing tuned. Runs that bench/results/training/small_sets.json holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config import parse_config
from sdas.data import Frame, read_frames, write_cache
from sdas.demo import PATIENT_RECIPE
from sdas.evaluate import evaluate
from sdas.files import write_text
from sdas.run.model import load_run_model
from sdas.train import train

RESULT = Path(__file__).resolve().parent / "results" / "training" / "small_sets.json"
VALIDATION = 10
"""Frames; they choose nothing."""
ERRORS = ("force_mae_mev_per_ang", "force_rmse_mev_per_ang", "energy_mae_mev", "energy_rmse_mev")


@dataclass(frozen=True)
class Set:
    """`file` below the data folder: `train` frames drawn by seed 0; its last `held_out` test, and those of `tests`."""

    file: str
    train: int
    held_out: int
    tests: dict[str, str]
    options: dict[str, Any]


def _rmd17(molecule: str) -> Set:
    name = "rmd17/rmd17_{}_{}_01.npz"
    return Set(name.format(molecule, "train"), 50, 0, {"test": name.format(molecule, "test")}, {"units": "kcal/mol"})


SETS = {
    "ethanol": _rmd17("ethanol"),
    "aspirin": _rmd17("aspirin"),
    "3bpa": Set("3bpa/train_300K.xyz", 440, 50, {"mixed temperatures": "3bpa/train_mixedT.xyz"}, {}),
}


def run(name: str, data: Path, minutes: float, folder: Path) -> dict[str, Any]:
    """Train on one set; errors by test set."""
    case = SETS[name]

    def read(file: str) -> list[Frame]:
        return list(read_frames(data / file, **case.options))

    frames = read(case.file)
    order = np.random.default_rng(0).permutation(len(frames)).tolist()
    held_out = order[len(order) - case.held_out :]
    write_cache([frames[i] for i in order[: case.train + VALIDATION]], folder / "cache")
    content = {
        "run_dir": str(folder / "run"),
        "data": {
            "path": str(folder / "cache"),
            "split": {"method": "random", "sizes": [case.train, VALIDATION, 0], "seed": 0},
        },
        "train": {**PATIENT_RECIPE, "minutes": minutes, "threads": 1, "device": "cpu"},
    }
    summary = train(parse_config(content, "bench/small_sets.py")).summary
    model = load_run_model(folder / "run")
    tests = {"held out": [frames[i] for i in held_out]} if held_out else {}
    tests |= {test: read(file) for test, file in case.tests.items()}
    errors = {}
    for test, some in tests.items():
        metrics = evaluate(model, some, 20).metrics
        errors[test] = {"frames": len(some), **{key: metrics[key] for key in ERRORS}}
    kept = ("steps", "train_flops", "wall_s", "parameters", "machine", "versions")
    return {"train_frames": case.train, "errors": errors, **{key: summary[key] for key in kept}}


def main() -> None:
    """Run what is missing."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    options.add_argument("--minutes", type=float, default=2.0)
    given = options.parse_args()
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in given.only:
        if name not in results:
            with tempfile.TemporaryDirectory() as folder:
                results[name] = run(name, given.data, given.minutes, Path(folder))
            write_text(RESULT, json.dumps(results, indent=1) + "\n")
        for test, errors in results[name]["errors"].items():
            print(name, test, {key: round(value, 2) for key, value in errors.items()}, flush=True)


if __name__ == "__main__":
    main()
