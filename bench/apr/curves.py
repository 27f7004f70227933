"""Tables and pictures of `results/apr/cells`: README.md beside them, and one picture per task.

APR = (1 / MAE_F) / FLOPs      MAE_F in eV/Å, FLOPs of training in units of 1e12
FLOPs to reach an error        between two budgets by a straight line in the logarithms
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from apr.protocol import BUDGETS, TASKS, Cell

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


def write_page(results: Path) -> str:
    """Write everything; a line that says where."""
    cells = read(results)
    parts = [_HEAD, _searches(cells)]
    for task in TASKS:
        rows = table(cells, task)
        if rows:
            parts += [f"## {task}", _errors(rows), _verdict(rows), _details(rows), f"![{task}]({task}.png)"]
            _picture(rows, task).savefig(results / f"{task}.png", dpi=150)
    failed = sorted({f"- {r['cell']['model']}, {r['cell']['task']}: {r['failed']}" for r in cells if "failed" in r})
    if failed:
        parts += ["## Did not run", "\n".join(failed)]
    (results / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return f"the page: {results / 'README.md'}"


_HEAD = """# Accuracy per FLOP

Written by `python -m apr` (bench/apr). Force errors are mean absolute errors on test frames in meV/Å, mean and spread
(largest minus smallest) over seeds. FLOPs are counted: forward, backward and optimizer of the whole training.
Every model has the same frames, cutoff, budget and the same search for its recipe, on one molecule at one budget."""


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)])


def _errors(rows: Mapping[str, Mapping[float, Sequence[Result]]]) -> str:
    budgets = sorted({budget for row in rows.values() for budget in row})
    lines = []
    for model in NAMES:
        if model in rows:
            values = []
            for budget in budgets:
                errors = [r["test"][ERROR] for r in rows[model].get(budget, [])]
                spread = f" ± {max(errors) - min(errors):.1f}" if len(errors) > 1 else ""
                values.append(f"{np.mean(errors):.1f}{spread}" if errors else "")
            lines.append([NAMES[model], *values])
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
        lines.append(
            [f"{budget / 1e12:g} TFLOP", NAMES[name], f"{error:.1f}", f"{ours:.1f}", f"{ours / error:.2f}", cost]
        )
    return _markdown(["budget", "best peer", "its error", "ours", "ratio", "we reach its error with"], lines)


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
                    f"{np.mean([r['wall_s'] for r in seeds]):.0f}",
                    f"{first['inference_flops_per_atom'] / 1e6:.2f}",
                    str(first["parameters"]),
                ]
            )
    head = ["model", "TFLOP", "APR", "energy MAE, meV", "steps", "seconds", "MFLOP per atom", "weights"]
    return _markdown(head, lines)


def _searches(cells: Sequence[Result]) -> str:
    """Every recipe that was tried, and which was taken."""
    found: dict[str, list[tuple[float, Cell]]] = {}
    for result in cells:
        if result["cell"]["search"] and "failed" not in result:
            found.setdefault(result["cell"]["model"], []).append((result["validation"][ERROR], result["cell"]))
    lines = []
    for model, tried in found.items():
        ordered = sorted(tried, key=lambda item: item[0])
        best = ordered[0][1]["recipe"]
        others = ", ".join(f"{e:.0f}" for e, _ in ordered[1:])
        recipe = f"{best['optimizer']} {best['rate']:g}, batch {best['batch']}"
        lines.append([NAMES[model], recipe, f"{ordered[0][0]:.1f}", others])
    head = ["model", "recipe taken", "its validation error", "the others' errors"]
    return "## The search\n\n" + _markdown(head, lines) if lines else ""


def _picture(rows: Mapping[str, Mapping[float, Sequence[Result]]], task: str) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for model in NAMES:
        if model not in rows:
            continue
        points = sorted((np.mean([r["train_flops"] for r in s]), mean_error(s), s) for s in rows[model].values())
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, y, "o-", color=COLORS[model], label=NAMES[model])
        for flops, _, seeds in points:
            axes.plot([flops] * len(seeds), [r["test"][ERROR] for r in seeds], ".", color=COLORS[model], alpha=0.5)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="force MAE, meV/Å", title=task)
    axes.set_xlim(0.7 * BUDGETS[0], 1.4 * BUDGETS[-1])
    axes.legend(fontsize=7, frameon=False)
    axes.grid(color="#e6e6e6", which="both")
    return figure
