"""How long does a molecule live that is hotter than the frames of rMD17?

    python bench/hot_dynamics.py DATA LABEL=MODEL...

MODEL is the name of a shipped potential, or a run directory of bench/pretrained.py, whose folder is called so; LABEL
says in words what it is. DATA has the folder rmd17. Ten replicas of Langevin dynamics, 20 ps at 0.5 fs, in float32. A
replica ends at 20 000 K, or where two atoms are closer than 0.4 Å. It has been in a hole where its potential energy is
more than 1 eV below every training frame of rMD17. Writes `bench/results/md/hot_dynamics.json`, where a case takes the
place of an older one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from record import HERE, _commit, _machine, _versions

import sdas
from sdas import potentials
from sdas.data import read_frames
from sdas.md import Replicas
from sdas.run.model import load_run_model

COUNT, PS, TIMESTEP_FS = 10, 20.0, 0.5
KELVIN = (1000.0, 1500.0)
HOLE_EV = 1.0


def lived(molecule: str, model: Any, lowest_trained: float, kelvin: float) -> dict[str, Any]:
    """Of the replicas, when they ended and which were in a hole. lowest_trained: energy, eV."""
    frame = potentials.frame(molecule)
    replicas = Replicas(
        model,
        [Atoms(frame.numbers, frame.positions)] * COUNT,
        "langevin",
        kelvin,
        timestep_fs=TIMESTEP_FS,
        seed=0,
        dtype="float32",
    )
    lowest = np.full(COUNT, np.inf)

    def observe(now: Replicas) -> None:
        rows = now.running
        lowest[rows] = np.minimum(lowest[rows], now.results["energy"].numpy())

    replicas.run(round(1000 * PS / TIMESTEP_FS), observe=observe)
    ends = [None if verdict is None else verdict.time_fs / 1000 for verdict in replicas.verdicts]
    deepest = lowest - lowest_trained
    return {
        "live_to_the_end": ends.count(None),
        "mean_life_ps": float(np.mean([PS if end is None else end for end in ends])),
        "in_a_hole": int((deepest < -HOLE_EV).sum()),
        "verdicts": [None if verdict is None else verdict.reason for verdict in replicas.verdicts],
        "ends_ps": ends,
        "lowest_ev_above_training": [round(float(value), 2) for value in deepest],
    }


def main(data: str, words: list[str]) -> None:
    """Run and write."""
    path = HERE / "results" / "md" / "hot_dynamics.json"
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    for word in words:
        label, _, place = word.partition("=")
        molecule = Path(place).name
        model: Any = sdas.pretrained(place) if place in potentials.NAMES else load_run_model(place)
        trained = read_frames(Path(data) / "rmd17" / f"rmd17_{molecule}_train_01.npz", units="kcal/mol")
        lowest = min(frame.energy for frame in trained)
        for kelvin in KELVIN:
            key = {"molecule": molecule, "potential": label, "kelvin": kelvin}
            case = key | lived(molecule, model, lowest, kelvin)
            cases = [other for other in cases if any(other[name] != key[name] for name in key)] + [case]
            print(*key.values(), *(case[name] for name in ("live_to_the_end", "mean_life_ps", "in_a_hole")), flush=True)
            record = {"machine": _machine(), "versions": _versions(["ase"]), "commit": _commit()}
            record |= {"replicas": COUNT, "ps": PS, "timestep_fs": TIMESTEP_FS, "cases": cases}
            path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
