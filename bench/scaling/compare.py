"""Adaptive scaling against fixed sizes and against growth at random times, at equal total FLOPs, trials included.

    python bench/scaling/compare.py --data ../shared/data --flops 1e11 [--molecules ethanol aspirin] [--seeds 0 1]
        [--arms adaptive middle] [--plot]

Every cell (molecule, seed, arm) is trained by the same recipe and tested on the same frames. Cells that the result file
holds are not run again, so the same command goes on where it was killed.

    adaptive    sdas scale, from the small size
    small, middle, large    one size, all FLOPs, the same cool-down
    random      grows as the adaptive run of the seed did, at times drawn at random; it has no trials to pay
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config import Config, parse_config
from sdas.data import FrameCache, read_frames, write_cache
from sdas.evaluate import evaluate
from sdas.files import write_text
from sdas.run.machine import describe_process
from sdas.run.model import load_run_model
from sdas.scaling.history import read_history
from sdas.scaling.loop import scale
from sdas.scaling.policy import candidates, together
from sdas.scaling.rules import Sizes
from sdas.scaling.settings import rules_of
from sdas.train.processes import Processes
from sdas.train.schedule import Ramp
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until
from sdas_kernels.nn import grow

SIZES = {
    "small": {"channels": 16, "heads": 16, "lmax": 1, "layers": 1},
    "middle": {"channels": 16, "heads": 16, "lmax": 2, "layers": 2},
    "large": {"channels": 32, "heads": 32, "lmax": 2, "layers": 2},
}
ARMS = ("adaptive", *SIZES, "random")
TRAIN, VALIDATION, TEST = 950, 50, 500
POINTS = 40
"""Validations of arms that are not adaptive."""


def main() -> None:
    options = parsed()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    results = Path(options.out) / f"compare-{options.flops:.0e}.json".replace("e+", "e")
    cells = json.loads(results.read_text())["cells"] if results.exists() else []
    for molecule in options.molecules:
        for seed in options.seeds:
            for arm in options.arms:
                if any((c["molecule"], c["seed"], c["arm"]) == (molecule, seed, arm) for c in cells):
                    continue
                cell = run(molecule, seed, arm, options, cells)
                cells.append(cell)
                record = {"recipe": recipe(0), "flops": options.flops, "test_frames": TEST, "cells": cells}
                write_text(results, json.dumps(record, indent=1) + "\n")
                print(f"{molecule} {seed} {arm}: {cell['test_force_mae_mev_per_ang']:.2f} meV/Å", flush=True)
    if options.plot:
        plot(cells, results.with_suffix(".png"))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with rmd17/")
    parser.add_argument("--flops", type=float, default=3e11)
    parser.add_argument("--molecules", nargs="+", default=["ethanol"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--out", default="bench/results/scaling")
    parser.add_argument("--plot", action="store_true", help="also draw the cells")
    return parser.parse_args()


def recipe(seed: int) -> dict[str, Any]:
    return {
        "steps": 1, "batch_size": 4, "optimizer": "muon", "learning_rate": 0.01, "loss": "norm", "ema_decay": 0.995,
        "seed": seed, "threads": 1, "device": "cpu", "validate_every": 10**9, "checkpoint_every": 10**9,
    }  # fmt: skip


def run(molecule: str, seed: int, arm: str, options: argparse.Namespace, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """One cell, in a folder that is removed."""
    began = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [Path(options.data) / "rmd17" / f"rmd17_{molecule}_{part}_01.npz" for part in ("train", "test")]
        frames = write_cache(chain.from_iterable(map(read_frames, files)), folder / "frames")
        config = configured(folder, seed, SIZES["small" if arm in ("adaptive", "random") else arm], options.flops)
        if arm == "adaptive":
            outcome = adaptive(config)
        else:
            events = drawn_events(molecule, seed, options.flops, cells) if arm == "random" else []
            outcome = on_a_timetable(config, frames, events)
        test = [frames[index] for index in range(1000, 1000 + TEST)]
        errors = evaluate(load_run_model(config.run_dir), test, batch_size=50).metrics
        shutil.rmtree(folder / "frames")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "molecule": molecule, "seed": seed, "arm": arm,
        "test_force_mae_mev_per_ang": errors["force_mae_mev_per_ang"], "test_energy_mae_mev": errors["energy_mae_mev"],
        **outcome, "cpu_s": used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime,
        "machine": describe_process(Processes("cpu").device),
    }  # fmt: skip


def configured(folder: Path, seed: int, size: dict[str, int], flops: float) -> Config:
    split = folder / "split.json"
    order = np.random.default_rng(seed).permutation(TRAIN + VALIDATION).tolist()
    parts = {"train": order[:TRAIN], "validation": order[TRAIN:], "test": list(range(1000, 1000 + TEST))}
    split.write_text(json.dumps(parts))
    content = {
        "run_dir": str(folder / "run"),
        "data": {"path": str(folder / "frames"), "split": {"method": "indices", "indices": str(split)}},
        "model": size,
        "train": recipe(seed),
        "scaling": {"flops": flops},
    }
    return parse_config(content, "compare.py")


def adaptive(config: Config) -> dict[str, Any]:
    content = scale(config).content
    history = read_history(Path(config.run_dir))
    points = [(point.spent, 1000 * point.error) for point in (*history.points, *history.cooled)]
    growths = [
        {"axes": g.axes, "sizes": g.sizes, "spent": g.spent, "before": 1000 * g.before, "born": 1000 * g.born}
        for g in history.growths
    ]
    decisions = [{"spent": d["spent"], "action": d["action"], "reason": d["reason"]} for d in history.decisions]
    trials = [{**trial, "grew": trial["axis"] in grown} for tried, grown in history.rounds for trial in tried]
    kept = {name: content[name] for name in ("spent", "lost", "sizes", "reason")}
    return {**kept, "curve": points, "growths": growths, "trials": trials, "decisions": decisions}


def drawn_events(molecule: str, seed: int, flops: float, cells: list[dict[str, Any]]) -> list[tuple[float, list[str]]]:
    """The growths of the adaptive cell, each at a time drawn from the whole way before the cool-down."""
    like = next(c for c in cells if (c["molecule"], c["seed"], c["arm"]) == (molecule, seed, "adaptive"))
    axes = [growth["axes"] for growth in like["growths"]]
    times = np.sort(np.random.default_rng(100 + seed).uniform(0, 0.8 * flops, len(axes)))
    return list(zip(times.tolist(), axes, strict=True))


def on_a_timetable(config: Config, frames: FrameCache, events: list[tuple[float, list[str]]]) -> dict[str, Any]:
    """A run that grows at given FLOPs, with warm-up and cool-down as an adaptive one has."""
    from sdas.train.loop import finish

    rules, flops = rules_of(config.scaling), config.scaling.flops
    assert flops is not None
    parts = json.loads(Path(str(config.data.split.indices)).read_text())
    data = TrainingData(frames, np.array(sorted(parts["train"])), np.array(parts["validation"]))
    config = config.model_copy(update={"train": config.train.model_copy(update={"schedule": "constant"})})
    points, growths = [], []
    with Processes("cpu") as processes, Session(config, data, processes) as session:

        def advance(end: float) -> None:
            while session.progress.flops < end:
                session.advance(Until(flops=min(end, session.progress.flops + flops / POINTS)))
                points.append((session.progress.flops, session.validate()["force_mae_mev_per_ang"]))

        for time, grown in events:
            advance(max(time, 1.0))
            shape = session.changes.model
            before = Sizes(shape["channels"], shape["heads"], shape["layers"], shape["lmax"], TRAIN)
            allowed = candidates(before, TRAIN, rules)
            sizes = together(before, {axis: each for axis, each in allowed.items() if axis in grown})
            to = {name: getattr(sizes, name) for name in ("channels", "heads", "layers", "lmax")}
            model, averaged = (grow(each, **to) for each in (session.model, session.averaged))  # type: ignore[arg-type]
            session.use_model(model, averaged, "kept")
            now = session.progress.flops
            session.ramp = Ramp(now, now + config.scaling.warmup * rules.delta_flops, 0.0, 1.0)
            growths.append({"axes": grown, "sizes": to, "spent": now})
        advance(rules.budget_flops)
        session.ramp = Ramp(session.progress.flops, flops, 1.0, 0.0)
        advance(flops)
        finish(session, True, {})
        sizes_now = {name: session.changes.model[name] for name in ("channels", "heads", "layers", "lmax")}
        return {"spent": session.progress.flops, "lost": 0, "sizes": sizes_now, "curve": points, "growths": growths}


def plot(cells: list[dict[str, Any]], path: Path) -> None:
    """Validation error over FLOPs spent, a panel per molecule; growths of adaptive runs are dots."""
    from matplotlib.figure import Figure

    molecules = sorted({cell["molecule"] for cell in cells})
    figure = Figure(figsize=(5.5 * len(molecules), 4), layout="constrained")
    colors = dict(zip(ARMS, ("#d9730d", "#9db7ff", "#5f86e8", "#23429c", "#888888"), strict=True))
    for axes, molecule in zip(figure.subplots(1, len(molecules), squeeze=False)[0], molecules, strict=True):
        for cell in (cell for cell in cells if cell["molecule"] == molecule):
            spent, error = np.array(cell["curve"]).T
            label = f"{cell['arm']}" if cell["seed"] == min(c["seed"] for c in cells) else None
            axes.plot(spent, error, color=colors[cell["arm"]], label=label, linewidth=1.4)
            for growth in cell["growths"] if cell["arm"] == "adaptive" else ():
                axes.plot(growth["spent"], growth["before"], "o", color=colors["adaptive"], markersize=5)
        axes.set(xscale="log", yscale="log", title=molecule, xlabel="FLOPs, trials included")
        axes.set_ylabel("validation force MAE (meV/Å)")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
