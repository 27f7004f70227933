"""Frames of molecules hotter than those of rMD17, chosen by active learning and labelled alike.

    python bench/active/hot.py DATA [--only ethanol uracil]

DATA has the folder rmd17. The pool: GFN2-xTB moves the molecule at 1500 K, and displaces it along normal modes as at
4000 K. `sdas active` begins with the 1000 training frames of rMD17 and labels, by PBE/def2-SVP as they were, what its
ensemble disagrees about: of the pool, and of its own dynamics at 1500 K. What was labelled goes to
`bench/results/active/hot/`, a file for each molecule; bench/pretrained.py trains on it too. Another program made the
labels of rMD17, and energies of two programs differ by a constant: they are moved by what it is on ten frames. A run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from live import outcome, timed

from sdas import potentials
from sdas.active.folder import round_frames
from sdas.data import Frame, FrameCache, read_frames
from sdas.data.writing import write_frames
from sdas.run.folder import CONFIG, FRAMES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from record import HERE, _commit, _machine, _versions

RESULTS = HERE / "results" / "active" / "hot"
MOLECULES = ("ethanol", "malonaldehyde", "uracil")
POOL = {
    "dynamics": "--temperature 1500 --frames 1000 --interval 20",
    "modes": "--temperature 4000 --frames 600",
}
ORACLE = "pyscf:pbe/def2-svp"
ROUNDS, COMPARED, TYPE = 4, 10, "hot"
ACTIVE = (
    f"--oracle {ORACLE} --rounds {ROUNDS} --labels-per-round 40 --set data.units=kcal/mol "
    "--set active.measure=largest-force --set active.exploration.frames=200 "
    "--set active.exploration.temperature_k=1500 --set active.processes=1"
)


def pool(molecule: str, folder: Path) -> Path:
    """Frames without labels, made unless they are there."""
    start, path = folder / "start.extxyz", folder / "pool.extxyz"
    if not path.exists():
        frame = potentials.frame(molecule)
        ase.io.write(start, Atoms(frame.numbers, frame.positions))
        parts = [folder / f"{sampling}.extxyz" for sampling in POOL]
        for part, (sampling, words) in zip(parts, POOL.items(), strict=True):
            command = f"data simulate --start {start} --engine tblite --sampling {sampling} {words} --out {part}"
            timed(shlex.split(command))
        path.write_text("".join(part.read_text() for part in parts))
    return path


def offsets(trained: list[Frame], folder: Path) -> list[float]:
    """Of the oracle's energies from those of rMD17, on its first frames, eV."""
    asked, answered = folder / "compared.extxyz", folder / "compared.labelled.extxyz"
    write_frames(asked, [(frame, {}) for frame in trained[:COMPARED]])
    timed(["label", str(asked), "--oracle", ORACLE, "--out", str(answered)])
    return [own.energy - frame.energy for own, frame in zip(read_frames(answered), trained, strict=False)]


def campaign(molecule: str, data: Path, folder: Path) -> dict[str, Any]:
    """Run it, write the frames that it labelled, and tell what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    run, trained = folder / "run", data / "rmd17" / f"rmd17_{molecule}_train_01.npz"
    if (run / CONFIG).exists():
        words = ["active", "--resume", str(run)]
    else:
        words = ["active", str(pool(molecule, folder)), "--data", str(trained), *shlex.split(ACTIVE)]
        words += ["--set", f"run_dir={run}"]
    timed(words)
    begun = len(FrameCache.open(run / FRAMES))
    frames = FrameCache.open(round_frames(run, ROUNDS))[begun:]
    apart = offsets(list(read_frames(trained, units="kcal/mol")), folder)
    facts = {"level_of_theory": "PBE/def2-SVP", "program": ORACLE}
    apart_ev = float(np.mean(apart))
    moved = [replace(frame, energy=frame.energy - apart_ev, config_type=TYPE) for frame in frames]
    write_frames(RESULTS / f"{molecule}.extxyz", [(frame, facts) for frame in moved])
    return {
        "command": f"sdas active pool.extxyz --data {trained.name} {ACTIVE}",
        **outcome(run),
        "energy_offset_mev": 1000 * apart_ev,
        "spread_of_offset_mev": 1000 * float(np.std(apart)),
    }


def main() -> None:
    """Run, write, and tell."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--only", nargs="+", choices=MOLECULES, default=list(MOLECULES))
    options.add_argument("--work", type=Path, default=Path("build/hot"))
    given = options.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "hot.json"
    cases = json.loads(path.read_text())["cases"] if path.exists() else {}
    for molecule in given.only:
        cases[molecule] = campaign(molecule, given.data, given.work / molecule)
        record = {"machine": _machine(), "versions": _versions(["pyscf", "tblite", "ase"]), "commit": _commit()}
        path.write_text(json.dumps({**record, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
