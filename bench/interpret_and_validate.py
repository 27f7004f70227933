"""Does attention tell bonds, and may short-trained models be trusted? Both commands on the runs given, with controls.

    python bench/interpret_and_validate.py RUN=FRAMES[@I,J,K]...

RUN is a run directory and FRAMES a file of labelled frames. With I,J,K the reaction coordinate is the transfer of atom
J from I to K. Writes `bench/results/interpret/molecules.json`: what was found and what the controls allow to be said,
without maps and components. A case takes the place of an older one of the same frames. About half a minute for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from record import HERE, _commit, _machine, _versions

from sdas.data import read_frames
from sdas.documents import read_document
from sdas.interpret import interpret
from sdas.run.folder import SUMMARY
from sdas.run.model import load_run_model
from sdas.validate import validate

FRAMES = 100


def main(pairs: list[str]) -> None:
    """Interpret, validate, write."""
    path = HERE / "results" / "interpret" / "molecules.json"
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    for pair in pairs:
        run, _, where = pair.partition("=")
        data, _, atoms = where.partition("@")
        transfer = [int(word) for word in atoms.split(",")] if atoms else None
        every = list(read_frames(data))
        frames, model = every[:: max(1, len(every) // FRAMES)][:FRAMES], load_run_model(run)
        found, checks = interpret(model, frames, transfer=transfer), validate(model, frames)["checks"]
        coordinate = found["coordinate"] or {}
        cases = [case for case in cases if case["data"] != Path(data).name]
        cases.append(
            {
                "data": Path(data).name,
                "commit": _commit(),
                "training": {k: read_document(Path(run) / SUMMARY).get(k) for k in ("steps", "wall_s", "train_flops")},
                "findings": found["findings"],
                "bonds": {k: v for k, v in found["bonds"].items() if k != "auc_of_layers_and_heads"},
                "angles": found["angles"],
                "coordinate": {name: _scores(coordinate[name]) for name in ("scan", "frames") if name in coordinate},
                "contributions": found["contributions"],
                "checks": checks,
            }
        )
        print(
            pair, *found["findings"], *(f"{c['name']}: {c['value']}" for c in checks if c["status"] == "fail"), sep="\n"
        )
    record = {"machine": _machine(), "versions": _versions(["ase", "rdkit"]), "commit": _commit(), "frames": FRAMES}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, "cases": cases}, indent=1) + "\n")
    print(f"written: {path}")


def _scores(part: dict[str, Any]) -> dict[str, Any]:
    """R² of the components, without their values."""
    own = {name: part[name]["r2"] for name in ("model", "distances")}
    return {**own, "random": [each["r2"] for each in part["random"]], "finding": part["finding"]}


if __name__ == "__main__":
    main(sys.argv[1:])
