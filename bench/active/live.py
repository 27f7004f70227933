"""Active learning from nothing, with oracles at work: time, errors and coverage of four commands.

    python bench/active/live.py [--only ethanol-pyscf paracetamol] [--set active.processes=1 ..]

    ethanol-pyscf    sdas active --smiles CCO --oracle pyscf:pbe/def2-svp --rounds 2
    ethanol-tblite   sdas active --smiles CCO --oracle tblite --rounds 5 --labels-per-round 100
    dipeptide        sdas active --sequence ACE-ALA-NME --oracle tblite --rounds 5 --labels-per-round 100
    paracetamol      sdas active --smiles "CC(=O)Nc1ccc(O)cc1" --oracle tblite --rounds 4 --labels-per-round 50
                     sdas md, 10 ps at 300 K by its model

All else is as it comes, but for what --set says. A case whose folder is there goes on in it; its times are then those
of the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.data import covalent_radii

from sdas.files import write_text
from sdas.run.checkpoint import versions
from sdas.run.folder import CONFIG, POOL
from sdas.run.ledger import read_lines
from sdas.run.machine import describe_process
from sdas.train.processes import Processes

CASES = {
    "ethanol-pyscf": "--smiles CCO --oracle pyscf:pbe/def2-svp --rounds 2",
    "ethanol-tblite": "--smiles CCO --oracle tblite --rounds 5 --labels-per-round 100",
    "dipeptide": "--sequence ACE-ALA-NME --oracle tblite --rounds 5 --labels-per-round 100",
    "paracetamol": "--smiles 'CC(=O)Nc1ccc(O)cc1' --oracle tblite --rounds 4 --labels-per-round 50",
}
MOVED = "paracetamol"
MD = "--steps 20000 --timestep 0.5 --temperature 300 --ensemble nvt"
LONGEST = 1.5
"""Of the sum of covalent radii: a bond that comes to it is torn."""


def main() -> None:
    options = parsed()
    results = Path(options.out) / "live.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    cases = json.loads(results.read_text())["cases"] if results.exists() else {}
    for name in options.only:
        run = Path(options.work) / name
        settings = [word for each in [*options.set, f"run_dir={run}"] for word in ("--set", each)]
        resumed = ["--resume", str(run)] if (run / CONFIG).exists() else None
        words = ["active", *(resumed or [*shlex.split(CASES[name]), *settings])]
        cases[name] = {"command": f"sdas active {CASES[name]}", "set": options.set, **timed(words), **outcome(run)}
        if name == MOVED:
            cases[name]["md"] = {"command": f"sdas md {MD}", **moved(run)}
        write(cases, results)


def write(cases: dict[str, Any], path: Path) -> None:
    """The result file, with what it was measured on."""
    with Processes("cpu") as processes:
        machine = describe_process(processes.device)
    facts = {"machine": machine, "versions": versions(), "date": time.strftime("%Y-%m-%d"), "dtype": "float32"}
    write_text(path, json.dumps({**facts, "cases": cases}, indent=1) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every case")
    parser.add_argument("--work", default="runs/live", help="folder of the runs")
    parser.add_argument("--out", default=str(Path(__file__).resolve().parents[1] / "results" / "active"))
    return parser.parse_args()


def timed(words: list[str]) -> dict[str, float]:
    """Run `sdas` in a process of its own; its seconds by the clock, and of CPU with all processes that it started."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-P", "-m", "sdas.cli", *words], check=True, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(cpu, 1)}


def outcome(run: Path) -> dict[str, Any]:
    """Errors, coverage and cost of a run, from its page's numbers."""
    numbers = json.loads((run / "report.json").read_text())
    lines = read_lines(run / "rounds.jsonl")
    computed = [line for line in lines if line["kind"] == "labeled"]
    computed += [line["first_labels"] for line in lines if "first_labels" in line]
    keys = ("labels", "force_mae_mev_per_ang", "energy_mae_mev", "coverage_validation", "coverage_selected")
    return {
        "errors_on": numbers["errors_on"],
        "rounds": [{key: row[key] for key in (*keys, "selected_force_mae_mev_per_ang")} for row in numbers["rounds"]],
        "oracle_s": round(sum(line["oracle_s"] for line in computed), 1),
        "labels_computed": sum(line["computed"] for line in computed),
        "training_s": round(numbers["cost"]["training_s"], 1),
        "flops": numbers["cost"]["flops"],
        "pool": next(
            {"frames": line["frames"], "dropped": line["dropped"]} for line in lines if line["kind"] == "pool"
        ),
    }


def moved(run: Path) -> dict[str, Any]:
    """10 ps of dynamics by the model of a run: its time, its temperature, and how far its bonds were stretched."""
    from sdas.data import FrameCache
    from sdas.data.writing import write_frames

    start, out = run / "md-start.extxyz", run / "md"
    write_frames(start, [(FrameCache.open(run / POOL)[0], {})])
    told = timed(["md", str(run), "--structure", str(start), "--out", str(out), *shlex.split(MD)])
    frames = ase.io.read(out / "trajectory.extxyz", ":")
    radii = covalent_radii[frames[0].numbers]
    sums = radii[:, None] + radii
    bonds = np.triu(frames[0].get_all_distances() < 1.25 * sums, 1)
    stretch = np.array([(frame.get_all_distances() / sums)[bonds] for frame in frames])
    return {
        **told,
        "frames": len(frames),
        "mean_temperature_k": round(json.loads((out / "md.json").read_text())["mean_temperature_k"], 1),
        "longest_bond_over_radii": round(float(stretch.max()), 3),
        "stable": bool(np.isfinite(stretch).all() and stretch.max() < LONGEST),
    }


if __name__ == "__main__":
    main()
