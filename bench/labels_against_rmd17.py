"""Does PySCF reproduce the labels of rMD17, PBE/def2-SVP by ORCA? And what does density fitting cost in accuracy?

    python bench/labels_against_rmd17.py [FRAMES]

Labels evenly chosen frames of the shipped ethanol sample, with and without density fitting, and writes
`bench/results/labels/`. Twenty frames take some ten minutes on one core. Labels are kept in build/, so an interrupted
run goes on.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np
from record import _commit, _machine, _versions

from sdas.config.label import ResourcesConfig, parse_oracle
from sdas.data import read_frames, sample
from sdas.label import Label, LabelStore, label_frames

ROOT = Path(__file__).resolve().parents[1]
ORACLE = "pyscf:pbe/def2-svp"


def main(count: int) -> None:
    """Label, compare, write."""
    every = list(read_frames(sample("ethanol")[0]))
    frames = every[:: len(every) // count][:count]
    forces = {"rMD17": [frame.forces for frame in frames]}
    energies = {"rMD17": [frame.energy for frame in frames]}
    seconds = {}
    with LabelStore.open(ROOT / "build" / "bench-labels") as store:
        for name, fitting in (("fitted", True), ("exact", False)):
            done = label_frames(
                frames, parse_oracle(ORACLE, {"density_fitting": fitting}), store, ResourcesConfig(), progress=print
            )
            labels = [label for label in done.outcomes if isinstance(label, Label)]
            assert len(labels) == count, done.outcomes
            forces[name] = [label.forces for label in labels]
            energies[name] = [label.energy for label in labels]
            seconds[name] = statistics.median(label.facts["seconds"] for label in labels)
    pairs = [("fitted", "rMD17"), ("exact", "rMD17"), ("fitted", "exact")]
    record = {
        "claim": "PySCF reproduces rMD17's forces on its own frames",
        "machine": _machine(),
        "versions": _versions(["pyscf", "ase"]),
        "commit": _commit(),
        "oracle": ORACLE,
        "frames": count,
        "median_seconds_of_a_frame": seconds,
        "differences": [
            {"of": a, "and": b, **_difference(forces[a], forces[b], energies[a], energies[b])} for a, b in pairs
        ],
    }
    path = ROOT / "bench" / "results" / "labels" / "pyscf_rmd17_ethanol.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def _difference(forces_a: list, forces_b: list, energies_a: list, energies_b: list) -> dict[str, float]:
    """Over all frames, meV and Å: of forces, by component; of energies, their mean and the spread about it."""
    apart = 1000 * np.abs(np.array(forces_a) - np.array(forces_b))
    energies = 1000 * (np.array(energies_a) - np.array(energies_b))
    return {
        "force_mae_mev_per_ang": round(float(apart.mean()), 3),
        "force_mae_of_the_worst_frame_mev_per_ang": round(float(apart.mean(axis=(1, 2)).max()), 3),
        "force_max_mev_per_ang": round(float(apart.max()), 3),
        "energy_offset_mev": round(float(energies.mean()), 3),
        "energy_spread_mev": round(float(energies.std()), 3),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
