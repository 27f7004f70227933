"""The grid, cell by cell, none twice: `PYTHONPATH=bench python -P -m apr --data DATA`.

DATA has the folders of `TASKS`. -P: else the sources here hide the installed package, which has compiled kernels.

    --plan       what the grid will cost, before anything is trained
    --quick      two molecules, three models, one seed, 0.3 TFLOP: 25 minutes on two cores at most; in build/apr/quick
    --models, --tasks, --budgets, --seeds      a part of the grid

First every model's recipe is sought: `protocol.search_cells`, then `protocol.further_cell` as long as there is one. The
best by validation forces is frozen for all else.
A peer runs in its own environment, by the interpreter that `SDAS_PEER_NEQUIP`, `SDAS_PEER_ALLEGRO`, `SDAS_PEER_MACE`
or `SDAS_PEER_EQUIFORMER` names; it finds this package in the sources. A peer without one, or that fails, is named with
the reason, and gets no number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apr import protocol
from apr.protocol import RATES, TASKS, Cell, Recipe, further_cell, search_cells

RESULTS = Path(__file__).resolve().parents[1] / "results" / "apr"
OWN = ("sdas", "sdas_paper", "transformer")
QUICK: dict[str, Any] = {
    "models": ["sdas", "nequip", "transformer"], "tasks": ["ethanol", "aspirin"], "budgets": [0.3], "seeds": [0],
}  # fmt: skip
FLOPS_PER_SECOND = 5e9
"""Guess for what has not been measured yet; --plan takes the measured speeds of each model instead where it can."""
SECONDS_AROUND = 12
"""Of a cell: imports, and the test frames."""
LIMIT_S = 4 * 3600


class Grid:
    """Where results lie, and what runs a cell."""

    def __init__(self, data: Path, results: Path, frames: Path) -> None:
        self.data, self.results, self.frames = data, results, frames
        (results / "cells").mkdir(parents=True, exist_ok=True)

    def path(self, cell: Cell) -> Path:
        """Of the result of a cell."""
        return self.results / "cells" / f"{cell.name}.json"

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell gave, or None; {"failed": reason} if it could not run."""
        path = self.path(cell)
        return json.loads(path.read_text()) if path.exists() else None

    def run(self, cell: Cell) -> dict[str, Any]:
        """The result, trained now unless it is there, by this recipe: a search that went on may have found another."""
        found = self.result(cell)
        if found is not None and "failed" not in found and found["cell"]["recipe"] == asdict(cell.recipe):
            return found
        frames = protocol.frames_file(cell.task, self.data, self.frames)
        interpreter = interpreter_of(cell.model)
        if interpreter is None:
            return self._failed(cell, f"absent: SDAS_PEER_{cell.model.upper()} names no interpreter")
        try:
            train(interpreter, cell.document(), frames, self.frames / cell.name, self.path(cell))
        except RuntimeError as error:
            return self._failed(cell, str(error))
        return self.result(cell) or self._failed(cell, "no result")

    def _failed(self, cell: Cell, reason: str) -> dict[str, Any]:
        found = {"cell": cell.document(), "failed": reason}
        self.path(cell).write_text(json.dumps(found, indent=1) + "\n")
        return found


def train(interpreter: str, cell: dict[str, Any], frames: Path, work: Path, result: Path) -> None:
    """Train one cell in a process of its own. `work`: place of its question (.json) and what it prints (.log).

    Raises RuntimeError with the last line that it printed if it fails.
    """
    question, log = work.parent / f"{work.name}.json", work.parent / f"{work.name}.log"
    question.write_text(json.dumps(cell))
    command = [interpreter, "-P", "-m", "apr.worker", str(question), str(frames), str(result)]
    variables = environment(cell["model"])
    with log.open("w") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=output, env=variables, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"longer than {LIMIT_S} s") from None
    if done.returncode:
        lines = [line for line in log.read_text().splitlines() if line.strip()] or [f"exit {done.returncode}"]
        raise RuntimeError(lines[-1][:300])


def interpreter_of(model: str) -> str | None:
    """Of the environment that has the model."""
    return sys.executable if model in OWN else os.environ.get(f"SDAS_PEER_{model.upper()}")


def environment(model: str) -> dict[str, str]:
    """Of a worker: one thread unless OMP_NUM_THREADS says otherwise, and `bench` on the path.

    Peers count their FLOPs by the sources of this package. Our own models need the installed one, which is compiled.
    """
    bench = Path(__file__).resolve().parents[1]
    sources = [] if model in OWN else [bench.parent, bench.parent / "python"]
    paths = [*map(str, [bench, *sources]), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def search(grid: Grid, model: str, train: bool) -> Recipe | None:
    """The recipe with the smallest validation force error, or None if no cell of the search has a result.

    train: cells of the search that have no result yet are run, and said; else only those with a result count.
    """
    errors: dict[Recipe, float] = {}
    cells: list[Cell] = search_cells(model)
    for cell in cells:
        found = grid.run(cell) if train else grid.result(cell)
        if found is None:
            continue
        if train:
            _say(cell, found)
        if "failed" not in found:
            errors[cell.recipe] = found["validation"]["force_mae_mev_per_ang"]
        if cell is cells[-1]:
            further = further_cell(model, errors)
            cells += [further] if further is not None else []
    return min(errors, key=errors.__getitem__) if errors else None


def cells(models: Sequence[str], tasks: Sequence[str], budgets: Sequence[float], seeds: Sequence[int]) -> list[Any]:
    """(model, task, budget, seed), cheap ones first, so that a grid that is stopped is complete up to a budget."""
    return [(m, t, b, s) for b in sorted(budgets) for s in seeds for t in tasks for m in models]


def plan(grid: Grid, given: argparse.Namespace) -> str:
    """What the grid costs, in TFLOP and hours."""
    speeds = _speeds(grid)
    lines = ["model          cells to do      TFLOP      hours"]
    total = 0.0
    for model in given.models:
        todo = [c.budget for c in search_cells(model) if grid.result(c) is None] if not given.no_search else []
        for m, task, budget, seed in cells([model], given.tasks, given.budgets, given.seeds):
            cell = Cell(m, task, budget * 1e12, seed, Recipe("", 0.0, 0))
            if grid.result(cell) is None:
                todo.append(cell.budget)
        hours = (sum(todo) / speeds.get(model, FLOPS_PER_SECOND) + SECONDS_AROUND * len(todo)) / 3600
        total += hours
        lines.append(f"{model:12s} {len(todo):13d} {sum(todo) / 1e12:10.1f} {hours:10.2f}")
    lines.append(f"{total:.1f} hours on one core; speeds measured: {', '.join(speeds) or 'none yet'}")
    return "\n".join(lines)


def _speeds(grid: Grid) -> dict[str, float]:
    """FLOPs per CPU second of each model, the median of its cells, those of the recorded results too."""
    seconds: dict[str, list[float]] = {}
    for path in {*(grid.results / "cells").glob("*.json"), *(RESULTS / "cells").glob("*.json")}:
        found = json.loads(path.read_text())
        if "failed" not in found:
            seconds.setdefault(found["cell"]["model"], []).append(
                found["train_flops"] / found.get("cpu_s", found["wall_s"])
            )
    return {model: statistics.median(rates) for model, rates in seconds.items()}


def main() -> None:
    """Search, then the grid, then the page."""
    options = argparse.ArgumentParser(prog="apr", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--results", type=Path, help=f"default: {RESULTS.relative_to(RESULTS.parents[2])}")
    options.add_argument("--work", type=Path, default=Path("build/apr"), help="frames and logs")
    options.add_argument("--models", nargs="+", choices=list(RATES), default=list(RATES))
    options.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS)[:4])
    options.add_argument("--budgets", nargs="+", type=float, default=[b / 1e12 for b in protocol.BUDGETS], help="TFLOP")
    options.add_argument("--seeds", nargs="+", type=int, default=list(protocol.SEEDS))
    options.add_argument("--quick", action="store_true")
    options.add_argument("--plan", action="store_true")
    options.add_argument("--no-search", action="store_true", help="only recipes that were found before")
    given = options.parse_args()
    if given.quick:
        for name, value in QUICK.items():
            setattr(given, name, value)
    results = given.results or (given.work / "quick" if given.quick else RESULTS)
    grid = Grid(given.data, results.resolve(), given.work.resolve())
    print(plan(grid, given), flush=True)
    if given.plan:
        return
    recipes = {model: search(grid, model, train=not given.no_search) for model in given.models}
    for model, task, budget, seed in cells(given.models, given.tasks, given.budgets, given.seeds):
        recipe = recipes[model]
        if recipe is None:
            print(f"{model}: left out, no cell of its search has a result", flush=True)
            continue
        cell = Cell(model, task, budget * 1e12, seed, recipe)
        _say(cell, grid.run(cell))
    from apr.curves import write_page

    print(write_page(grid.results))


def _say(cell: Cell, found: dict[str, Any]) -> None:
    now = time.strftime("%H:%M:%S")
    if "failed" in found:
        print(f"{now} {cell.name}: {found['failed']}", flush=True)
        return
    part = "validation" if cell.search else "test"
    force = found[part]["force_mae_mev_per_ang"]
    print(f"{now} {cell.name}: {force:.2f} meV/Å ({part}), {found['steps']} steps, {found['wall_s']:.0f} s", flush=True)
