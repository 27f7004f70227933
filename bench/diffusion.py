"""Does the Lennard-Jones fluid diffuse as in the literature, and do models diffuse as what they were trained on?

    python bench/diffusion.py fluid           # two replicas of 256 atoms against Meier, Laesecke and Kabelac
    python bench/diffusion.py model           # trains on 108 atoms of the fluid, and runs both
    python bench/diffusion.py lips FRAMES     # trains on frames of Li₂₇P₁₂S₄₄, and runs 4 × 36 ps at 520 K

State point T* = 0.722, ρ* = 0.8442, near the triple point. There D* = 0.0325 with 1372 atoms (J. Chem. Phys. 121, 9526
(2004)) and η* = 3.258 (J. Chem. Phys. 121, 3671 (2004)). With the correction of Yeh and Hummer, D* = 0.0353 in an
infinite box.

The frames of Li₂₇P₁₂S₄₄ are of S. Batzner and others (Nat. Commun. 13, 2453 (2022)), from dynamics of density
functional theory at 520 K, without their order in time.

Writes `bench/results/diffusion/`. Dynamics lie in build/, so an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read, write
from record import _commit, _machine, _versions

from sdas.diffusion import Diffusion, diffusion, diffusion_error, read_paths
from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.md import Replicas
from sdas.md.lennard_jones import ARGON_ANG, ARGON_EV, LennardJones
from sdas.md.replica_run import run_replicas
from sdas.md.trajectory import Trajectory
from sdas.run.folder import SUMMARY

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench-diffusion"
T, RHO, ETA, XI = 0.722, 0.8442, 3.258, 2.837297
LITERATURE, LITERATURE_ATOMS = 0.0325, 1372
MASS = 39.948
TAU_FS = ARGON_ANG * math.sqrt(MASS / ARGON_EV) / units.fs
UNIT = ARGON_ANG**2 / (TAU_FS / 1000)  # Å²/ps of D* = 1
KELVIN = T * ARGON_EV / units.kB
TIMESTEP, EVERY = 0.005 * TAU_FS, 20
MELTING, SKIPPED = 1500, 2000
LIPS_START_FS = 4000.0
"""The lag from which displacements are taken for linear where the run is too short to tell."""
LIPS_SETTINGS = ["channels=16", "heads=16", "lmax=1", "layers=2", "cutoff=5.0"]
LIPS_TRAINING, LIPS_REPLICAS, LIPS_KELVIN, LIPS_STEPS, LIPS_SKIPPED_FS = 4000, 4, 520.0, 18_000, 4000.0


def box(cells: int) -> Atoms:
    """A face-centered cubic crystal of 4 cells³ atoms at the density; it melts at twice the temperature."""
    atoms = bulk("Ar", "fcc", a=ARGON_ANG * (4 / RHO) ** (1 / 3), cubic=True) * ((cells,) * 3)
    atoms.set_masses([MASS] * len(atoms))
    return atoms


def infinite(reduced: float, atoms: int) -> float:
    """D* of an infinite box, by Yeh and Hummer."""
    return reduced + XI * T / (6 * math.pi * ETA * (atoms / RHO) ** (1 / 3))


def liquids(cells: int, replicas: int) -> list[Atoms]:
    """Molten starts."""
    hot = Replicas(LennardJones(), [box(cells)] * replicas, "bussi", 2.5 * KELVIN, timestep_fs=TIMESTEP, seed=100)
    hot.run(MELTING)
    return [hot.atoms(replica) for replica in range(replicas)]


def measured(forces: Any, starts: Sequence[Atoms], steps: int, folder: Path) -> tuple[Diffusion, float]:
    """The constant of argon, and the seconds that it took."""
    begin = time.perf_counter()
    running = Replicas(forces, starts, "bussi", KELVIN, timestep_fs=TIMESTEP, seed=7)
    run_replicas(running, steps, folder, every=EVERY, progress=True)
    paths = [each.after(SKIPPED * TIMESTEP) for each in read_paths(folder)[0]]
    return diffusion(paths, "Ar"), time.perf_counter() - begin


def reduced(found: Diffusion) -> dict[str, Any]:
    """In units of the fluid."""
    return {
        "atoms": found.atoms,
        "replicas": found.replicas,
        "length_tau": found.length_fs / TAU_FS,
        "start_tau": found.start_fs / TAU_FS,
        "diffusion": found.mean / UNIT,
        "interval_95": [value / UNIT for value in found.interval],
    }


def fluid(steps: int) -> dict[str, Any]:
    """The fluid against the literature."""
    starts = liquids(4, 2)
    found, seconds = measured(LennardJones(cutoff=2.5 * ARGON_ANG), starts, steps, WORK / "fluid")
    ours, theirs = infinite(found.mean / UNIT, found.atoms), infinite(LITERATURE, LITERATURE_ATOMS)
    return {
        "claim": "the Lennard-Jones fluid diffuses as in the literature, within 5 %",
        "measured": reduced(found) | {"infinite_box": ours, "seconds": round(seconds)},
        "literature": {"diffusion": LITERATURE, "atoms": LITERATURE_ATOMS, "infinite_box": theirs},
        "relative_difference_in_an_infinite_box": ours / theirs - 1,
    }


def model(steps: int) -> dict[str, Any]:
    """A model trained on the fluid's forces against the fluid, in the same box."""
    starts = liquids(3, 2)
    reference, seconds = measured(LennardJones(cutoff=2.5 * ARGON_ANG), starts, steps, WORK / "reference")
    frames = [frame for replica in (0, 1) for frame in Trajectory(WORK / "reference/trajectory").atoms(replica)]
    chosen = [frames[row] for row in np.linspace(0, len(frames) - 1, 120).astype(int)]
    labelled = Replicas(LennardJones(cutoff=2.5 * ARGON_ANG), chosen)
    write(WORK / "frames.extxyz", [labelled.atoms(row) for row in range(len(chosen))])
    settings = ["channels=8", "heads=8", "lmax=1", "layers=1", f"cutoff={2.5 * ARGON_ANG}"]
    run = WORK / "run"
    if not (run / "model").exists():
        options = [f"model.{each}" for each in settings] + ["train.minutes=2", "train.batch_size=2", f"run_dir={run}"]
        flags = [word for option in options for word in ("--set", option)]
        subprocess.run(
            [sys.executable, "-P", "-m", "sdas.cli", "train", str(WORK / "frames.extxyz"), *flags], check=True
        )
    found, model_seconds = measured(run, starts, steps, WORK / "model")
    error = diffusion_error(found, reference)
    return {
        "claim": "a model trained on the fluid's forces diffuses within 10 % of it, intervals overlapping",
        "reference": reduced(reference) | {"seconds": round(seconds)},
        "model": reduced(found) | {"seconds": round(model_seconds), "settings": settings, "training_minutes": 2},
        "error": error.as_dict(),
    }


def lips(data: str) -> dict[str, Any]:
    """Lithium in a superionic glass, by a model trained on frames of density functional theory."""
    run, folder = WORK / "lips-run", WORK / "lips"
    options = [f"model.{each}" for each in LIPS_SETTINGS] + [f"train.steps={LIPS_TRAINING}", f"run_dir={run}"]
    flags = [word for option in [*options, "train.threads=1"] for word in ("--set", option)]
    if not (run / "model").exists():
        subprocess.run([sys.executable, "-P", "-m", "sdas.cli", "train", data, *flags], check=True)
    starts: list[Atoms] = read(data, index=f":{LIPS_REPLICAS}")
    begin = time.process_time()
    dynamics = Replicas(str(run), starts, "bussi", LIPS_KELVIN, timestep_fs=2.0, seed=7, dtype="float32")
    ran = run_replicas(dynamics, LIPS_STEPS, folder, every=25, progress=True)
    paths = [each.after(LIPS_SKIPPED_FS) for each in read_paths(folder)[0]]
    training, hint = read_document(run / SUMMARY), None
    try:
        found = diffusion(paths, "Li")
    except SdasError as error:  # not linear within half of the run
        found, hint = diffusion(paths, "Li", LIPS_START_FS), str(error)
    return {
        "claim": "lithium diffuses, in dynamics that stay stable",
        "settings": LIPS_SETTINGS,
        "training": {name: training.get(name) for name in ("steps", "wall_s", "last_validation")},
        "temperature_k": LIPS_KELVIN,
        "stable_ps": ran.stable_fs / 1000,
        "start_was_given_because": hint,
        "model": {name: value for name, value in found.as_dict().items() if not isinstance(value, list)}
        | {"interval_95_ang2_per_ps": found.interval, "seconds": round(time.process_time() - begin)},
        "not_known": "The frames at hand have no order in time, and thus no diffusion constant of their own.",
    }


def main(what: str, word: str | None) -> None:
    """Measure and write."""
    WORK.mkdir(parents=True, exist_ok=True)
    record = {"machine": _machine(), "versions": _versions(["kinisi", "ase"]), "commit": _commit()}
    if what == "lips":
        record |= lips(str(word))
    else:
        record |= {"fluid": fluid, "model": model}[what](int(word or 12_000))
        record |= {"state_point": {"temperature": T, "density": RHO, "viscosity": ETA}, "units": "Lennard-Jones"}
    path = ROOT / "bench" / "results" / "diffusion" / f"{'' if what == 'lips' else 'lennard_jones_'}{what}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fluid", sys.argv[2] if len(sys.argv) > 2 else None)
