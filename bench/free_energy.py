"""Does a model have the free energies of its reference? The torsion of ethanol's hydroxyl group, GFN2-xTB.

    python bench/free_energy.py [STEPS]

Labels frames of the shipped ethanol sample, trains for two minutes, and samples the torsion C–C–O–H by both. Writes
`bench/results/free_energy/`. What is computed lies in build/, so an interrupted run goes on. On one core 200000 steps
of eight replicas take the model about half an hour, and GFN2-xTB hours; fewer steps give wider error bars.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from record import _commit, _machine, _versions

from sdas.config.label import ResourcesConfig, parse_oracle
from sdas.data import read_frames, sample
from sdas.data.writing import write_frames
from sdas.free_energy import Axis, free_energy, parse_variable
from sdas.free_energy.oracle import OracleForces
from sdas.free_energy.run import Sampling
from sdas.label import Label, LabelStore, label_frames

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench-free-energy"
ORACLE, FRAMES, MINUTES = "tblite:GFN2-xTB", 600, 2


def torsion(atoms: Atoms) -> str:
    """The chain C–C–O–H, by bonds."""
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    near = np.argsort(atoms.get_distances(oxygen, range(len(atoms))))
    hydrogen = next(int(atom) for atom in near if atoms.numbers[atom] == 1)
    carbon = next(int(atom) for atom in near if atoms.numbers[atom] == 6)
    other = next(int(atom) for atom in np.flatnonzero(atoms.numbers == 6) if atom != carbon)
    return f"dihedral:{other},{carbon},{oxygen},{hydrogen}"


def trained() -> Path:
    """The run of a model trained on the reference."""
    run = WORK / "run"
    if not (run / "model").exists():
        frames = list(read_frames(sample("ethanol")[0]))
        chosen = frames[:: max(1, len(frames) // FRAMES)][:FRAMES]
        with LabelStore.open(WORK / "labels") as store:
            done = label_frames(chosen, parse_oracle(ORACLE, {}), store, ResourcesConfig())
        labelled = [
            (replace(frame, energy=label.energy, forces=label.forces), {})
            for frame, label in zip(done.frames, done.outcomes, strict=True)
            if isinstance(label, Label)
        ]
        write_frames(WORK / "frames.extxyz", labelled)
        command = [sys.executable, "-P", "-m", "sdas.cli", "train", str(WORK / "frames.extxyz")]
        subprocess.run([*command, "--set", f"train.minutes={MINUTES}", "--set", f"run_dir={run}"], check=True)
    return run


def main(steps: int) -> None:
    """Sample both, compare, write."""
    WORK.mkdir(parents=True, exist_ok=True)
    run = trained()
    first = next(iter(read_frames(sample("ethanol")[0])))
    atoms = Atoms(first.numbers, first.positions)
    name = torsion(atoms)
    sampling = Sampling(steps=steps, replicas=8, save_every=500)
    axes, seconds, found = [Axis(parse_variable(name), -180, 180, 36)], {}, {}
    for what, forces in (("reference", OracleForces(ORACLE)), ("model", str(run))):
        begin = time.perf_counter()
        known = found["reference"].landscape if found else None
        found[what] = free_energy(forces, atoms, axes, sampling, WORK / what, reference=known, progress=True)
        seconds[what] = round(time.perf_counter() - begin)
    error = found["model"].error
    assert error is not None
    record = {
        "claim": "the model has the free energies of its reference",
        "machine": _machine(),
        "versions": _versions(["tblite", "ase"]),
        "commit": _commit(),
        "oracle": ORACLE,
        "variable": name,
        "steps": steps,
        "replicas": sampling.replicas,
        "seconds": seconds,
        "sampling_error": error.as_dict(),
        **{what: each.landscape.as_dict() | {"notes": each.notes} for what, each in found.items()},
    }
    path = ROOT / "bench" / "results" / "free_energy" / "ethanol_torsion.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["sampling_error"], indent=1), seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
