"""Active learning in retrospect: labels of a pool are hidden until a rule asks for them.

    python bench/active/retrospective.py --data ../shared/data [--sets 3bpa acac aspirin] [--seeds 0 1 2]
        [--rules random topk lcmd maxdist] [--rounds 4] [--steps 2000] [--models 3] [--plot]
        [--uncertainty ensemble] [--features last-layer]

    3bpa        start 50 frames at 300 K; pool and test: mixed temperatures
    acac        start 50 frames at 300 K; pool and test: 600 K
    aspirin     start 50 frames of rMD17; pool and test of the same, a thermal pool

Every cell (set, rule, seed) is a run of `sdas active` in a folder of its own, which resumes; what is in the result file
is not run again. All rules of a seed begin with the same frames and the same ensemble.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from sdas.active.rounds import learn
from sdas.config import Config, parse_config
from sdas.data import read_frames, write_cache
from sdas.files import write_text
from sdas.run.checkpoint import versions
from sdas.run.folder import ACTS
from sdas.run.ledger import read_lines
from sdas.run.machine import describe_process
from sdas.train.processes import Processes

SETS = {
    "3bpa": ("3bpa/train_300K.xyz", "3bpa/train_mixedT.xyz"),
    "acac": ("acac/train_300K.xyz", "acac/train_600K.xyz"),
    "aspirin": ("rmd17/rmd17_aspirin_train_01.npz", "rmd17/rmd17_aspirin_test_01.npz"),
}
"""Files of the start, and of the pool and the test frames."""
START, VALIDATION, TEST = 50, 30, 150
RULES = ("random", "topk", "lcmd", "maxdist")
LABELS_PER_ROUND = 25
ONE_MODEL = ("shallow", "dropout", "last-layer")
"""Sources of uncertainty that need no ensemble."""


def main() -> None:
    options = parsed()
    results = Path(options.out) / "retrospective.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    cells = json.loads(results.read_text())["cells"] if results.exists() else []
    for name in options.sets:
        for seed in options.seeds:
            for rule in options.rules:
                cell = {
                    "set": name, "rule": rule, "seed": seed, "uncertainty": options.uncertainty,
                    "features": options.features, "models": options.models, "steps": options.steps,
                    "fine_tuning_steps": options.fine_tuning, "rounds": options.rounds, "learning": options.learning,
                }  # fmt: skip
                if any(cell.items() <= known.items() for known in cells):
                    continue
                cells.append({**cell, **run(options, cell)})
                write(cells, results)
    write(cells, results)
    if options.plot:
        plot(cells, results.with_suffix(".png"))


def write(cells: list[dict[str, Any]], path: Path) -> None:
    """The result file, with what it was measured on."""
    with Processes("cpu") as processes:
        facts = {
            "machine": describe_process(processes.device),
            "versions": versions(),
            "date": time.strftime("%Y-%m-%d"),
        }
    told = {"dtype": "float32", "start": START, "validation": VALIDATION, "test": TEST, "per_round": LABELS_PER_ROUND}
    write_text(path, json.dumps({**facts, **told, "savings": savings(cells), "cells": cells}, indent=1) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of real reference data")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--fine-tuning", type=int, default=500)
    parser.add_argument("--uncertainty", choices=["ensemble", *ONE_MODEL], default="ensemble")
    parser.add_argument("--features", choices=["last-layer", "gradient"], default="last-layer")
    parser.add_argument("--learning", choices=["fine-tune", "scratch"], default="fine-tune")
    parser.add_argument("--work", default="runs/retrospective", help="folder of the runs")
    parser.add_argument("--out", default=str(Path(__file__).resolve().parents[1] / "results" / "active"))
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


def run(options: argparse.Namespace, cell: dict[str, Any]) -> dict[str, Any]:
    """The curve of a cell, and the seconds that this process took for it."""
    began = time.process_time()
    config = configured(options, cell)
    done = learn(config, resume=(Path(config.run_dir) / ACTS).exists())
    if done.signal is not None:
        raise SystemExit(128 + done.signal)
    acts = read_lines(Path(config.run_dir) / ACTS)
    assessed = [act for act in acts if act["kind"] == "assessed"]
    return {
        "labels": [act["labels"] for act in assessed],
        "force_mae_mev_per_ang": [act["test"]["force_mae_mev_per_ang"] for act in assessed],
        "force_rmse_mev_per_ang": [act["test"]["force_rmse_mev_per_ang"] for act in assessed],
        "energy_mae_mev": [act["test"]["energy_mae_mev"] for act in assessed],
        "coverage_in_distribution": [(act["calibration"]["validation"] or {}).get("coverage") for act in assessed],
        "coverage_test": [(act["calibration"]["test"] or {}).get("coverage") for act in assessed],
        "flops": sum(act["flops"] for act in acts if act["kind"] == "trained"),
        "cpu_s": round(time.process_time() - began, 1),
    }


def configured(options: argparse.Namespace, cell: dict[str, Any]) -> Config:
    """The run of a cell: small models, in this process, one after the other."""
    name, seed = cell["set"], cell["seed"]
    keys = ("set", "rule", "seed", "uncertainty", "features", "models", "steps", "fine_tuning_steps", "learning")
    words = [str(cell[key]) for key in keys]
    train = {"steps": options.steps, "batch_size": 4, "optimizer": "muon", "learning_rate": 0.01, "loss": "norm"}
    content = {
        "run_dir": str(Path(options.work) / "-".join(words)),
        "data": {
            "path": str(prepared(options, name, "start")),
            "test": str(prepared(options, name, "test")),
            "split": {"sizes": [START, VALIDATION, 0], "seed": seed},
        },
        "model": {"channels": 16, "heads": 16, "lmax": 2, "layers": 2, "cutoff": 5.0},
        "train": {**train, "ema_decay": 0.99, "seed": 1000 * seed, "threads": 1, "device": "cpu"},
        "active": {
            "pool": str(prepared(options, name, "pool")), "oracle": "hidden", "select": cell["rule"],
            "uncertainty": cell["uncertainty"], "features": cell["features"], "rounds": options.rounds,
            "labels_per_round": LABELS_PER_ROUND, "models": options.models, "steps": options.fine_tuning,
            "learning": options.learning, "processes": 1,
        },
    }  # fmt: skip
    return parse_config(content, "the benchmark")


def prepared(options: argparse.Namespace, name: str, part: str) -> Path:
    """A cache of the frames of a part, the same for every cell."""
    place = Path(options.work) / "data" / f"{name}-{part}"
    if not place.exists():
        first, second = (list(read_frames(Path(options.data) / file)) for file in SETS[name])
        order = np.random.default_rng(0).permutation(len(second))
        frames = {
            "start": first,
            "test": [second[int(index)] for index in order[:TEST]],
            "pool": [second[int(index)] for index in order[TEST:]],
        }
        write_cache(frames[part], place)
    return place


def panels(cells: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Cells by set and number of models, and there by how they select; seeds together."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell["models"] < 2, list(SETS).index(cell["set"]))):
        panel = cell["set"] if cell["models"] > 1 else f"{cell['set']}, one model"
        words = [cell["rule"]]
        words += [cell["uncertainty"]] if cell["uncertainty"] != "ensemble" else []
        words += [cell["features"]] if cell["features"] != "last-layer" else []
        found.setdefault(panel, {}).setdefault(", ".join(words), []).append(cell)
    return found


def labels_until(cell: dict[str, Any], measure: str, error: float) -> float | None:
    """New labels by which a curve comes down to an error, between rounds on a line; None if it does not."""
    curve, labels = cell[f"force_{measure}_mev_per_ang"], cell["labels"]
    for k in range(1, len(curve)):
        if curve[k] <= error:
            part = (curve[k - 1] - error) / (curve[k - 1] - curve[k])
            return float(labels[k - 1] + part * (labels[k] - labels[k - 1]) - labels[0])
    return None


def savings(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By how much fewer new labels than random each way of selecting comes to random's last error, by seed."""
    found = []
    for panel, series in panels(cells).items():
        for name, of_name in series.items():
            source = name.partition(", ")[2] if name.partition(", ")[2] in ONE_MODEL else ""
            random = series.get(f"random, {source}" if source else "random", [])
            if name.startswith("random"):
                continue
            row: dict[str, Any] = {"panel": panel, "selection": name}
            for measure in ("mae", "rmse"):
                row[measure] = []
                for cell in of_name:
                    for beside in random:
                        if beside["seed"] == cell["seed"]:
                            needed = labels_until(cell, measure, beside[f"force_{measure}_mev_per_ang"][-1])
                            whole = beside["labels"][-1] - beside["labels"][0]
                            row[measure].append(None if needed is None else round(1 - needed / whole, 3))
            found.append(row)
    return found


def plot(cells: list[dict[str, Any]], path: Path) -> None:
    """Force errors against labels, means over seeds."""
    from matplotlib.figure import Figure

    shown = panels(cells)
    figure = Figure(figsize=(4.2 * len(shown), 6.0), layout="constrained")
    for row, measure in enumerate(("mae", "rmse")):
        for column, (panel, series) in enumerate(shown.items()):
            axes = figure.add_subplot(2, len(shown), row * len(shown) + column + 1)
            for name, of_name in series.items():
                curves = [cell[f"force_{measure}_mev_per_ang"] for cell in of_name]
                length = min(map(len, curves))
                mean = np.mean([curve[:length] for curve in curves], axis=0)
                axes.plot(of_name[0]["labels"][:length], mean, marker="o", label=f"{name} ({len(of_name)})")
            axes.set(title=panel, xlabel="labels", ylabel=f"force {measure.upper()} (meV/Å)")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
