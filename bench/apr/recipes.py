"""Which recipe and which layer earn their FLOPs: one change at a time, at equal training FLOPs.

    PYTHONPATH=bench python -P -m apr.recipes --data DATA [--tasks aspirin] [--budget 1] [--seeds 0] [--only muon …]

Every row is one plain recipe with the changes that it names, trained on one task; "defaults" is what the package takes
today. Muon made five Newton–Schulz steps in all rows but that one. Rows that are in results/apr/recipes.json are not
trained again; recipes.md beside it is their table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from apr import protocol
from apr.protocol import TASKS, Cell, Recipe
from apr.run import RESULTS, train

Changes = dict[str, dict[str, Any]]
BASE = Recipe("muon", 1e-2, 4)
PLAIN = {"n_radial": 8, "node_product": False}
NORM: Changes = {"train": {"loss": "norm", "energy_weight": 0.4, "logit_decay": 0.0}, "model": PLAIN}
SQUARED: Changes = {"train": {"loss": "squared", "energy_weight": 4.0, "logit_decay": 0.0}, "model": PLAIN}
HUBER: Changes = {"train": {"loss": "huber", "energy_weight": 4.0, "logit_decay": 0.0}, "model": PLAIN}


def _train(**changes: Any) -> tuple[Recipe, Changes]:
    return BASE, NORM | {"train": NORM["train"] | changes}


def _model(**changes: Any) -> tuple[Recipe, Changes]:
    return BASE, NORM | {"model": PLAIN | changes}


ROWS: dict[str, tuple[Recipe, Changes]] = {
    "defaults": (BASE, {}),
    "adam 5e-3, squared, batch 8": (Recipe("adam", 5e-3, 8), SQUARED),
    "adam 5e-3, norm, batch 4": (Recipe("adam", 5e-3, 4), NORM),
    "muon 1e-2, squared, batch 4": (BASE, SQUARED),
    "muon 1e-2, huber, batch 4": (BASE, HUBER),
    "muon 1e-2, norm, batch 4": (BASE, NORM),
    "batch 2": (Recipe("muon", 1e-2, 2), NORM),
    "batch 8": (Recipe("muon", 1e-2, 8), NORM),
    "rate 5e-3": (Recipe("muon", 5e-3, 4), NORM),
    "rate 2e-2": (Recipe("muon", 2e-2, 4), NORM),
    "adam's share of the rate 1": _train(adam_learning_rate=1e-2),
    "adam's share of the rate 1/4": _train(adam_learning_rate=2.5e-3),
    "weight decay 0.01": _train(weight_decay=0.01),
    "weight decay 0.1": _train(weight_decay=0.1),
    "warm-up 100": _train(warmup_steps=100),
    "average 0.995": _train(ema_decay=0.995),
    "average 0.9998": _train(ema_decay=0.9998),
    "clip 1": _train(clip_norm=1.0),
    "energy weight 0.1": _train(energy_weight=0.1),
    "energy weight 1": _train(energy_weight=1.0),
    "energy weight 4": _train(energy_weight=4.0),
    "energy weight 40": _train(energy_weight=40.0),
    "node product": _model(node_product=True),
    "lmax 1": _model(lmax=1),
    "lmax 3": _model(lmax=3),
    "3 layers": _model(layers=3),
    "1 layer": _model(layers=1),
    "16 channels": _model(channels=16, heads=16),
    "48 channels": _model(channels=48, heads=48),
    "64 channels": _model(channels=64, heads=32),
    "8 heads": _model(heads=8),
    "5 radial functions": _model(n_radial=5),
    "12 radial functions": _model(n_radial=12),
    "key channels 2": _model(key_channels=2),
    "key channels 8": _model(key_channels=8),
}
"""Row: recipe, and changes to the sections train and model. Rows without a loss in their name have the norm."""


def run(name: str, task: str, budget: float, seed: int, frames: Path) -> dict[str, Any]:
    """Train one row, in a process of its own."""
    recipe, changes = ROWS[name]
    cell = Cell("sdas", task, budget, seed, recipe).document() | {"changes": changes}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "result.json"
        train(sys.executable, cell, frames, Path(folder) / "cell", answer)
        found = json.loads(answer.read_text())
    kept = ("validation", "test", "train_flops", "steps", "wall_s", "parameters")
    return {"recipe": cell["recipe"], "changes": changes, **{key: found[key] for key in kept}}


def table(results: dict[str, Any]) -> str:
    """Rows by task, best first by the validation frames: what is chosen here has not seen the test frames."""
    lines = ["# Recipes and layers at equal training FLOPs", "", (__doc__ or "").split("\n\n")[2].replace("\n", " ")]
    for place, rows in results.items():
        lines += [
            "",
            f"## {place}",
            "",
            "| changed | validation force MAE, meV/Å | test force MAE, meV/Å | test energy MAE, meV | steps |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, seeds in sorted(rows.items(), key=lambda item: _mean(item[1])):
            energy = sum(r["test"]["energy_mae_mev"] for r in seeds.values()) / len(seeds)
            forces = " | ".join(
                " / ".join(f"{r[part]['force_mae_mev_per_ang']:.1f}" for r in seeds.values())
                for part in ("validation", "test")
            )
            steps = next(iter(seeds.values()))["steps"]
            lines.append(f"| {name} | {forces} | {energy:.2f} | {steps} |")
    return "\n".join(lines) + "\n"


def _mean(seeds: dict[str, Any]) -> float:
    return sum(r["validation"]["force_mae_mev_per_ang"] for r in seeds.values()) / len(seeds)


def main() -> None:
    """Train what is missing and write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["aspirin"])
    options.add_argument("--budget", type=float, default=1.0, help="TFLOP")
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--work", type=Path, default=Path("build/apr"), help="frames")
    given = options.parse_args()
    file = given.results / "recipes.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for task in given.tasks:
        frames = protocol.frames_file(task, given.data, given.work.resolve())
        rows = results.setdefault(f"{task}, {given.budget:g} TFLOP", {})
        for name in given.only:
            for seed in given.seeds:
                seeds = rows.setdefault(name, {})
                if str(seed) not in seeds:
                    seeds[str(seed)] = run(name, task, given.budget * 1e12, seed, frames)
                    file.write_text(json.dumps(results, indent=1) + "\n")
                    found = seeds[str(seed)]
                    error = found["test"]["force_mae_mev_per_ang"]
                    print(f"{task}, {name}, seed {seed}: {error:.2f} meV/Å, {found['wall_s']:.0f} s", flush=True)
    (given.results / "recipes.md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
