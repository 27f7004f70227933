"""What mends models at short distance, and what does it cost in accuracy?

    python bench/short_range.py FRAMES TRAINED MODEL...

MODEL is a run directory or the name of a shipped potential. TRAINED are the frames that it was trained on, FRAMES
labelled ones that it was not. MODEL+zbl is the model with that repulsion added after the training, MODEL+inner-cutoff
with inner cutoffs from TRAINED, MODEL+null without any. Writes `bench/results/short_range.json`, where a case takes the
place of an older one: force errors, the lines of `sdas validate` on short range, and whether the molecule comes back
when it is relaxed from each of its bonds pressed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.optimize import FIRE
from record import HERE, _commit, _machine, _versions

import sdas
from sdas import potentials
from sdas.data import read_frames
from sdas.errors import SdasError
from sdas.evaluate import evaluate
from sdas.interpret.bonds import beyond, bonds_of
from sdas.md import SDASCalculator
from sdas.run.model import load_run_model
from sdas.train.inner_cutoffs import with_inner_cutoff
from sdas.validate.scans import bonds, dimers
from sdas.validate.subject import Subject
from sdas_kernels.nn import SDAS

SCANNED = 60
PRESSED = 0.7
"""Bonds are pressed to so many times their length."""
STEPS, BACK_EV = 500, 0.3
"""Of a relaxation; so little above or below the relaxed frame tells that the molecule is back, in some conformation."""


def with_repulsion(model: Any, kind: str | None, trained: list[Any]) -> SDAS:
    """The same weights with another repulsion, or with none."""
    made = SDAS(**model.config | {"repulsion": None if kind == "inner-cutoff" else kind})
    weights = model.state_dict().items()
    made.to(model.embedding.weight.dtype)
    made.load_state_dict({n: w for n, w in weights if n != "_extra_state" and not n.startswith("repulsion.")})
    return (with_inner_cutoff(made, trained) if kind == "inner-cutoff" else made).eval()


def relaxations(model: SDAS, frame: Any) -> dict[str, int]:
    """How many molecules come back, of those with one bond pressed; rings are left out."""
    calculator = SDASCalculator(model, dtype=torch.float64)

    def relaxed(positions: Any) -> float:
        atoms = Atoms(frame.numbers, positions, calculator=calculator)
        try:
            FIRE(atoms, logfile=None).run(fmax=0.02, steps=STEPS)
            return float(atoms.get_potential_energy())
        except (ValueError, SdasError):  # atoms that have left or fallen into one
            return float("nan")

    lowest, tried, back = relaxed(frame.positions), 0, 0
    bonded = bonds_of(frame)
    for b, c in np.argwhere(np.triu(bonded)).tolist():
        side = beyond(bonded, b, c)
        if side is not None:
            positions = frame.positions.copy()
            positions[side] -= (1 - PRESSED) * (frame.positions[c] - frame.positions[b])
            tried += 1
            back += abs(relaxed(positions) - lowest) < BACK_EV
    return {"bonds": tried, "come_back": int(back)}


def main(data: str, trained_on: str, words: list[str]) -> None:
    """Measure and write."""
    path = HERE / "results" / "short_range.json"
    frames, trained = list(read_frames(data)), list(read_frames(trained_on))
    cases = json.loads(path.read_text())["cases"]
    for word in words:
        name, added, kind = word.partition("+")
        model: Any = sdas.pretrained(name) if name in potentials.NAMES else load_run_model(name)
        model = with_repulsion(model, None if kind == "null" else kind, trained) if added else model
        subject = Subject.of(model, frames[:SCANNED])
        case = {
            "run": ("shipped " if name in potentials.NAMES else "") + Path(name).name,
            "data": Path(data).name,
            "repulsion": model.config.get("repulsion"),
            "force_mae_mev_per_ang": evaluate(model, frames, 50).metrics["force_mae_mev_per_ang"],
            "lines": {
                check.name: {"eV": check.value, "status": check.status, "worst": check.note}
                for check in dimers(subject)[0] + bonds(subject)[0]
            },
            "relaxed_from_bonds_pressed": relaxations(model, frames[0]),
        }
        same = [other for other in cases if all(other.get(key) == case[key] for key in ("run", "data", "repulsion"))]
        cases = [other for other in cases if other not in same] + [case]
        print(json.dumps(case, indent=1, ensure_ascii=False))
    record = {"machine": _machine(), "versions": _versions(["ase"]), "commit": _commit()}
    path.write_text(json.dumps({**record, "cases": cases}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
