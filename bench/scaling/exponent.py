"""The exponent α of SDAS: force error against the FLOPs of training, at fixed sizes and of the best of them.

    python bench/scaling/exponent.py --data ../shared/data [--flops 5e11] [--sets aspirin 3bpa] [--sizes middle large]
        [--plot]

A model is trained at a constant rate. Its averaged weights are validated over the last one and a half decades of the
FLOPs. From points of that curve copies are cooled down: their rate falls to zero over the last fifth of their FLOPs.
The law E∞ + A·C^−α and the power law with E∞ = 0 are fitted to both curves. The frontier is the least cooled error of
all sizes at each of these FLOPs. What the result file holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare import SIZES, recipe

from sdas.config import Config, parse_config
from sdas.data import FrameCache, read_frames, write_cache
from sdas.files import write_text
from sdas.run.machine import describe_process
from sdas.scaling.law import fit
from sdas.scaling.trainer import copy_state
from sdas.train.processes import Processes
from sdas.train.schedule import Ramp
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until

FILES = {"aspirin": "rmd17/rmd17_aspirin_train_01.npz", "3bpa": "3bpa/train_300K.xyz"}
VALIDATION = 50
RANGE = 0.03
"""The FLOPs of the first point over those of the last."""
CURVE_POINTS, COOLED_POINTS, COOLDOWN = 31, 9, 0.2
PUBLISHED = {"mission": (0.05, 0.10), "literature of potentials": (0.25, 0.40)}
RESAMPLES = 1000


def main() -> None:
    options = parsed()
    results = Path(options.out) / "exponent.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    curves = json.loads(results.read_text())["curves"] if results.exists() else []
    for name in options.sets:
        for size in options.sizes:
            if not any((curve["set"], curve["size"]) == (name, size) for curve in curves):
                curves.append(run(name, size, options))
                record = {"recipe": recipe(0), "published": PUBLISHED, "curves": curves, "fits": fits(curves)}
                write_text(results, json.dumps(record, indent=1) + "\n")
    print(table(fits(curves)))
    if options.plot:
        plot(curves, fits(curves), results.with_suffix(".png"))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with rmd17/ and 3bpa/")
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=FILES)
    parser.add_argument("--sizes", nargs="+", default=["middle", "large"], choices=SIZES)
    parser.add_argument("--flops", type=float, default=5e11, help="of the last point")
    parser.add_argument("--out", default="bench/results/scaling")
    parser.add_argument("--plot", action="store_true", help="also draw the curves")
    return parser.parse_args()


def run(name: str, size: str, options: argparse.Namespace) -> dict[str, Any]:
    """The curve of a size, and its cooled points, each as [FLOPs, meV/Å]."""
    began = resource.getrusage(resource.RUSAGE_SELF)
    last = options.flops
    grid, ends = (np.geomspace(RANGE * last, last, number) for number in (CURVE_POINTS, COOLED_POINTS))
    curve: list[tuple[int, float]] = []
    cooled: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as scratch, Processes("cpu") as processes:
        folder = Path(scratch)
        frames = write_cache(read_frames(Path(options.data) / FILES[name]), folder / "frames")
        config, data = configured(folder / "run", size), divided(frames)
        for end in ends:
            with Session(config, data, processes) as session:
                for target in [*(c for c in grid if session.progress.flops < c <= (1 - COOLDOWN) * end)]:
                    curve.append(advanced(session, target))
                session.advance(Until(flops=(1 - COOLDOWN) * end))
                session.save()
            branch = folder / f"cooled-{end:.0f}"
            copy_state(Path(config.run_dir), branch)
            with Session(config.model_copy(update={"run_dir": str(branch)}), data, processes) as session:
                session.ramp = Ramp(session.progress.flops, end, 1.0, 0.0)
                cooled.append(advanced(session, end))
                print(f"{name} {size} {end:.3g} FLOPs: {cooled[-1][1]:.2f} meV/Å", flush=True)
        with Session(config, data, processes) as session:
            curve += [advanced(session, target) for target in grid if target > session.progress.flops]
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
    machine = describe_process(Processes("cpu").device)
    return {"set": name, "size": size, "curve": curve, "cooled": cooled, "cpu_s": cpu_s, "machine": machine}


def configured(run_dir: Path, size: str) -> Config:
    content = {
        "run_dir": str(run_dir),
        "data": {"path": "frames"},
        "model": SIZES[size],
        "train": {**recipe(0), "schedule": "constant"},
    }
    return parse_config(content, "exponent.py")


def divided(frames: FrameCache) -> TrainingData:
    order = np.random.default_rng(0).permutation(len(frames))
    return TrainingData(frames, np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION]))


def advanced(session: Session, target: float) -> tuple[int, float]:
    session.advance(Until(flops=target))
    return session.progress.flops, session.validate()["force_mae_mev_per_ang"]


def fits(curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The law and the power law of every curve, of its cooled points, and of the frontier of each set."""
    found = []
    for name in dict.fromkeys(curve["set"] for curve in curves):
        of_set = [curve for curve in curves if curve["set"] == name]
        for curve in of_set:
            found.append({"set": name, "of": f"{curve['size']}, constant rate", **fitted(curve["curve"])})
            found.append({"set": name, "of": f"{curve['size']}, cooled", **fitted(curve["cooled"])})
        frontier = [
            min(points, key=lambda point: point[1]) for points in zip(*(c["cooled"] for c in of_set), strict=True)
        ]
        found.append({"set": name, "of": "frontier, cooled", **fitted(frontier)})
    return found


def fitted(points: list[tuple[int, float]]) -> dict[str, Any]:
    """α of the law with its floor and its 95 % interval, and the slope of a straight line in logarithms, with the
    interval of resampled points: α where E∞ = 0."""
    compute, error = np.array(points).T
    law = fit(compute, error, seed=0)
    x, y = np.log(compute), np.log(error)
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, len(x), len(x)) for _ in range(RESAMPLES)]
    slopes = [-np.polyfit(x[draw], y[draw], 1)[0] for draw in draws if len(set(draw.tolist())) > 2]
    return {
        "decades": float(np.log10(compute[-1] / compute[0])),
        "alpha": law.alpha,
        "alpha_interval": law.interval("alpha"),
        "e_inf": law.e_inf,
        "why_not_identifiable": law.why,
        "power_alpha": float(-np.polyfit(x, y, 1)[0]),
        "power_alpha_interval": np.quantile(slopes, [0.025, 0.975]).tolist(),
    }


def table(found: list[dict[str, Any]]) -> str:
    lines = [f"{'set':8} {'of':24} {'α, E∞ = 0':>10} {'95 %':>14} {'α':>6} {'95 %':>14} {'E∞ meV/Å':>9}  remark"]
    for each in found:
        (a, b), (c, d) = each["power_alpha_interval"], each["alpha_interval"]
        lines.append(
            f"{each['set']:8} {each['of']:24} {each['power_alpha']:10.3f} {a:6.3f}–{b:6.3f}  {each['alpha']:6.2f} "
            f"{c:6.2f}–{d:6.2f}  {each['e_inf']:9.2f}  {each['why_not_identifiable']}"
        )
    published = (f"{low:.2f}–{high:.2f} ({name})" for name, (low, high) in PUBLISHED.items())
    return "\n".join([*lines, f"published: {', '.join(published)}"])


def plot(curves: list[dict[str, Any]], found: list[dict[str, Any]], path: Path) -> None:
    """A panel per set: curves as lines, cooled points as dots, the slopes of the published exponents beside them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    names = list(dict.fromkeys(curve["set"] for curve in curves))
    figure = Figure(figsize=(5.5 * len(names), 4.2), layout="constrained")
    colors = {"small": "#9db7ff", "middle": "#5f86e8", "large": "#23429c"}
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for curve in (curve for curve in curves if curve["set"] == name):
            color = colors[curve["size"]]
            axes.plot(*np.array(curve["curve"]).T, color=color, linewidth=1.2, label=f"{curve['size']}, constant rate")
            axes.plot(*np.array(curve["cooled"]).T, "o-", color=color, markersize=4, linewidth=0.6, label="cooled down")
        x = np.array([point[0] for point in (curves[0]["cooled"][0], curves[0]["cooled"][-1])])
        start = min(curve["cooled"][0][1] for curve in curves if curve["set"] == name)
        for alpha, style in ((0.05, ":"), (0.10, ":"), (0.25, "--"), (0.40, "--")):
            axes.plot(x, start * (x / x[0]) ** -alpha, style, color="#999999", linewidth=0.9)
            axes.text(x[1], start * (x[1] / x[0]) ** -alpha, f" {alpha:.2f}", fontsize=8, color="#777777", va="center")
        (frontier,) = (each for each in found if each["set"] == name and each["of"] == "frontier, cooled")
        axes.set(xscale="log", yscale="log", xlabel="FLOPs of training", ylabel="validation force MAE (meV/Å)")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{name}: frontier α = {frontier['power_alpha']:.2f}")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
