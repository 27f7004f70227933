"""Tables and pictures of `results/apr/cells`: README.md beside them, and one picture per task.

APR = (1 / MAE_F) / FLOPs      MAE_F in eV/Å, FLOPs of training in units of 1e12
FLOPs to reach an error        between two budgets by a straight line in the logarithms
error at some CPU seconds      likewise
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from apr.protocol import BATCH, BUDGETS, SEARCH_BUDGET, SEARCH_TASK, TASKS

NAMES = {
    "sdas": "SDAS",
    "sdas_paper": "SDAS, layer as published",
    "nequip": "NequIP",
    "allegro": "Allegro",
    "mace": "MACE",
    "equiformer": "equiformer-pytorch",
    "transformer": "transformer, no symmetry",
}
COLORS = {
    "sdas": "#0b5fff", "sdas_paper": "#7aa5ff", "nequip": "#e08e0b", "allegro": "#d1495b", "mace": "#3b8e5a",
    "equiformer": "#76448a", "transformer": "#8a8a8a",
}  # fmt: skip
ERROR = "force_mae_mev_per_ang"
Result = dict[str, Any]


def read(results: Path) -> list[Result]:
    """All cells, sorted by name."""
    return [json.loads(path.read_text()) for path in sorted((results / "cells").glob("*.json"))]


def table(cells: Sequence[Result], task: str) -> dict[str, dict[float, list[Result]]]:
    """Model → budget → the cells of its seeds, of one task, the search left out."""
    found: dict[str, dict[float, list[Result]]] = {}
    for result in cells:
        cell = result["cell"]
        if cell["task"] == task and not cell["search"] and "failed" not in result:
            found.setdefault(cell["model"], {}).setdefault(cell["budget"], []).append(result)
    return found


def mean_error(seeds: Sequence[Result]) -> float:
    """Mean force MAE over seeds, meV/Å."""
    return float(np.mean([result["test"][ERROR] for result in seeds]))


def best_peer(rows: Mapping[str, Mapping[float, Sequence[Result]]], budget: float) -> tuple[str, float] | None:
    """The model of others with the smallest error at a budget, and that error."""
    errors = {m: mean_error(row[budget]) for m, row in rows.items() if not m.startswith("sdas") and budget in row}
    return min(errors.items(), key=lambda item: item[1]) if errors else None


def flops_to_reach(row: Mapping[float, Sequence[Result]], error: float) -> tuple[str, float] | None:
    """("=" or "<", FLOPs) at which a model's error falls to `error`; None if it never does.

    "<": its smallest budget reached it already.
    """
    points = sorted((np.mean([r["train_flops"] for r in seeds]), mean_error(seeds)) for seeds in row.values())
    if points[0][1] <= error:
        return "<", float(points[0][0])
    for (c1, e1), (c2, e2) in pairwise(points):
        if e2 <= error < e1:
            part = np.log(e1 / error) / np.log(e1 / e2)
            return "=", float(np.exp(np.log(c1) + part * np.log(c2 / c1)))
    return None


def error_at(row: Mapping[float, Sequence[Result]], seconds: float) -> tuple[str, float] | None:
    """("=" or "<", error) of a model after so many CPU seconds; None if its smallest budget takes longer.

    "<": it has more than its largest budget took.
    """
    points = sorted((np.mean([r["cpu_s"] for r in seeds]), mean_error(seeds)) for seeds in row.values())
    if seconds < points[0][0]:
        return None
    if seconds > points[-1][0]:
        return "<", points[-1][1]
    times, errors = np.log(np.array(points)).T
    return "=", float(np.exp(np.interp(np.log(seconds), times, errors)))


def write_page(results: Path) -> str:
    """Write everything; a line that says where."""
    cells = read(results)
    parts = [_HEAD, _searches(cells)]
    for task in TASKS:
        rows = table(cells, task)
        if rows:
            parts += [f"## {task}", _errors(rows), _verdict(rows), _details(rows), f"![{task}]({task}.png)"]
            _picture(rows, task).savefig(results / f"{task}.png", dpi=150)
    parts += [_settings(cells), _failed(cells)]
    (results / "README.md").write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")
    return f"the page: {results / 'README.md'}"


_HEAD = f"""# Accuracy per FLOP

Written by `python -m apr` (bench/apr). Force errors are mean absolute errors on test frames in meV/Å, mean and spread
(largest minus smallest) over seeds. FLOPs are counted: forward, backward and optimizer of the whole training.

Every model has the same frames, cutoff and budget, and the same search for its recipe: on {SEARCH_TASK}, with
{SEARCH_BUDGET / 1e12:g} TFLOP, batches of {BATCH}, two optimizers at three rates each. Where an optimizer's best rate
was the last of its row, the search went on. The recipe is taken by validation frames and then frozen: on other
molecules and at other budgets nothing was tuned, ours neither. A cell that says "not run" was not run."""


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)])


def _errors(rows: Mapping[str, Mapping[float, Sequence[Result]]]) -> str:
    budgets = sorted({*BUDGETS, *(budget for row in rows.values() for budget in row)})
    lines = []
    for model, name in NAMES.items():
        values = []
        for budget in budgets:
            errors = [r["test"][ERROR] for r in rows.get(model, {}).get(budget, [])]
            spread = f" ± {max(errors) - min(errors):.1f}" if len(errors) > 1 else ""
            values.append(f"{np.mean(errors):.1f}{spread}" if errors else "not run")
        lines.append([name, *values])
    return _markdown(["force MAE, meV/Å", *(f"{b / 1e12:g} TFLOP" for b in budgets)], lines)


def _verdict(rows: Mapping[str, Mapping[float, Sequence[Result]]]) -> str:
    if "sdas" not in rows:
        return ""
    lines = []
    for budget, seeds in sorted(rows["sdas"].items()):
        peer = best_peer(rows, budget)
        if peer is None:
            continue
        name, error = peer
        reached = flops_to_reach(rows["sdas"], error)
        cost = "never" if reached is None else f"{reached[0]} {reached[1] / 1e12:.3g} TFLOP"
        ours = mean_error(seeds)
        seconds, our_seconds = (float(np.mean([r["cpu_s"] for r in some])) for some in (rows[name][budget], seeds))
        then = error_at(rows["sdas"], seconds)
        later = "longer" if then is None else f"{then[0]} {then[1]:.1f}"
        errors = [f"{error:.1f}", f"{ours:.1f}", f"{ours / error:.2f}"]
        times = [f"{seconds:.0f}", f"{our_seconds:.0f}", later]
        lines.append([f"{budget / 1e12:g} TFLOP", NAMES[name], *errors, cost, *times])
    head = ["budget", "best peer", "its error", "ours", "ours / its", "we reach its error with"]
    return _markdown([*head, "its CPU seconds", "ours", "our error at its CPU seconds"], lines)


def _details(rows: Mapping[str, Mapping[float, Sequence[Result]]]) -> str:
    lines = []
    for model in NAMES:
        for budget, seeds in sorted(rows.get(model, {}).items()):
            first, error = seeds[0], mean_error(seeds)
            apr = 1e3 / error / (np.mean([r["train_flops"] for r in seeds]) / 1e12)
            lines.append(
                [
                    NAMES[model],
                    f"{budget / 1e12:g}",
                    f"{apr:.1f}",
                    f"{np.mean([r['test']['energy_mae_mev'] for r in seeds]):.2f}",
                    str(first["steps"]),
                    f"{np.mean([r['cpu_s'] for r in seeds]):.0f}",
                    f"{first['peak_mib']:.0f}",
                    f"{first['inference_flops_per_atom'] / 1e6:.2f}",
                    str(first["parameters"]),
                ]
            )
    head = ["model", "TFLOP", "APR", "energy MAE, meV", "steps", "CPU seconds", "peak MiB", "MFLOP per atom", "weights"]
    return _markdown(head, lines)


def _searches(cells: Sequence[Result]) -> str:
    """Every recipe that was tried; bold: the one that was taken. Other budgets and batches are older trials."""
    rows: dict[tuple[str, float, int, str], dict[float, float]] = {}
    for result in cells:
        cell = result["cell"]
        if cell["search"] and "failed" not in result:
            recipe = cell["recipe"]
            row = rows.setdefault((cell["model"], cell["budget"], recipe["batch"], recipe["optimizer"]), {})
            row[recipe["rate"]] = result["validation"][ERROR]
    lines = []
    for model in NAMES:
        own = [error for key, row in rows.items() if key[:3] == (model, SEARCH_BUDGET, BATCH) for error in row.values()]
        for key, row in sorted(rows.items()):
            if key[0] == model:
                taken = min(own) if own and key[1:3] == (SEARCH_BUDGET, BATCH) else None
                tried = [(f"{rate:g}: {e:.1f}", e == taken) for rate, e in sorted(row.items())]
                errors = [f"**{text}**" if best else text for text, best in tried]
                lines.append([NAMES[model], f"{key[1] / 1e12:g}", str(key[2]), key[3], " / ".join(errors)])
    head = ["model", "TFLOP", "batch", "optimizer", "rate: validation force MAE, meV/Å"]
    return "## The search\n\n" + _markdown(head, lines) if lines else ""


def _settings(cells: Sequence[Result]) -> str:
    """What was set of each model, and why."""
    said = {r["cell"]["model"]: r for r in cells if "failed" not in r}
    lines = []
    for model in NAMES:
        if model in said:
            packages = ", ".join(f"{name} {version}" for name, version in said[model]["packages"].items())
            lines.append(f"- **{NAMES[model]}**. " + ". ".join(said[model]["settings"].values()) + f". ({packages})")
    return "## How each was set\n\n" + "\n".join(lines) if lines else ""


def _failed(cells: Sequence[Result]) -> str:
    """Cells that could not run, with the reason."""
    failed = {f"- {NAMES[r['cell']['model']]}, {r['cell']['task']}: {r['failed']}" for r in cells if "failed" in r}
    return "## Did not run\n\n" + "\n".join(sorted(failed)) if failed else ""


def _picture(rows: Mapping[str, Mapping[float, Sequence[Result]]], task: str) -> Figure:
    """Error over FLOPs, and over CPU time."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels = ((left, "train_flops", 1e12, "training, TFLOP"), (right, "cpu_s", 1.0, "training, seconds of one core"))
    for axes, key, unit, label in panels:
        seen = []
        for model, name in NAMES.items():
            found = rows.get(model, {}).values()
            points = sorted((np.mean([r[key] for r in seeds]) / unit, mean_error(seeds)) for seeds in found)
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=COLORS[model], label=name)
            for seeds in found:
                axes.plot([r[key] / unit for r in seeds], [r["test"][ERROR] for r in seeds], ".", color=COLORS[model])
            seen += [x for x, _ in points]
        axes.set(xscale="log", yscale="log", xlabel=label, xlim=_decades(seen))
        axes.grid(color="#e6e6e6", which="both")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    errors = [mean_error(seeds) for row in rows.values() for seeds in row.values()]
    left.set(ylabel="force MAE, meV/Å", title=task, ylim=_decades(errors))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around the values."""
    return float(10 ** np.floor(np.log10(0.9 * min(values)))), float(10 ** np.ceil(np.log10(1.1 * max(values))))
