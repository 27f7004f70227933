"""What training on stresses is worth: silicon with and without it, by two trainings that differ in nothing else.

    python bench/silicon.py --data DATA/si/sitraj.xyz --out bench/results/training/silicon.json

110 frames of 64 atoms at 800 K: 80 train, 10 validate, 20 test. Then the lattice constant of diamond silicon at rest,
elastic constants by finite strain of ±0.5 % with the atoms relaxed, and 10 ps at constant pressure.

    C11 = Δσ_xx / 2δ and C12 = Δσ_yy / 2δ under ε_xx = ±δ;      C44 = Δσ_yz / 4δ under ε_yz = ε_zy = ±δ

Of the literature: PBE (Materials Project, mp-149) and experiment (Hall, Phys. Rev. 161, 756, 1967; 298 K).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.optimize import FIRE
from scipy.optimize import minimize_scalar
from training_sets import sdas

from sdas.files import write_text
from sdas.md import Replicas, SDASCalculator
from sdas.md.barostats import StochasticCellRescaling
from sdas.run.model import load_run_model

STRAIN, NPT_PS, NPT_K = 0.005, 10.0, 300.0
LITERATURE = {
    "PBE": {"a": 5.469, "C11": 153, "C12": 57, "C44": 74},
    "experiment": {"a": 5.431, "C11": 165.6, "C12": 63.9, "C44": 79.5},
}
"""Å and GPa."""


def trained(data: Path, folder: Path, weight: float, steps: int) -> tuple[Any, dict[str, float]]:
    """A model, and its errors on the test frames: meV, meV/Å, meV/Å³."""
    run = folder / f"stress-weight-{weight:g}"
    config = {
        "run_dir": str(run),
        "data": {"path": str(data), "split": {"sizes": [80, 10, 20]}},
        "train": {"steps": steps, "batch_size": 4, "threads": 1, "stress_weight": weight},
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    sdas("train", str(folder / "run.yaml"))
    sdas("evaluate", str(run))
    found = json.loads((run / "evaluation.json").read_text())
    return load_run_model(run, "cpu"), {name: found[name] for name in found if "mae_mev" in name}


def stress(model: Any, atoms: Atoms) -> np.ndarray:
    """`[3, 3]` GPa, of the relaxed atoms in their cell."""
    atoms = atoms.copy()
    atoms.calc = SDASCalculator(model)
    FIRE(atoms, logfile=None).run(fmax=1e-4, steps=500)
    return atoms.get_stress(voigt=False) / units.GPa


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """The cell and the atoms in it, stretched."""
    moved = atoms.copy()
    moved.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    return moved


def mechanics(model: Any) -> dict[str, float]:
    """Lattice constant in Å, elastic constants in GPa."""

    def energy(a: float) -> float:
        crystal = bulk("Si", "diamond", a=a, cubic=True)
        crystal.calc = SDASCalculator(model)
        return float(crystal.get_potential_energy())

    a = float(minimize_scalar(energy, bounds=(5.2, 5.8), method="bounded", options={"xatol": 1e-5}).x)
    crystal = bulk("Si", "diamond", a=a, cubic=True)

    def change(i: int, j: int) -> np.ndarray:
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = STRAIN
        return stress(model, strained(crystal, strain)) - stress(model, strained(crystal, -strain))

    along, across = change(0, 0), change(1, 2)
    return {
        "a": a,
        "C11": float(along[0, 0] / (2 * STRAIN)),
        "C12": float(along[1, 1] / (2 * STRAIN)),
        "C44": float(across[1, 2] / (4 * STRAIN)),
    }


def at_constant_pressure(model: Any, a: float) -> dict[str, Any]:
    """64 atoms at 300 K and no pressure: mean lattice constant over the second half, Å, and how the run ended."""
    atoms = bulk("Si", "diamond", a=a, cubic=True) * (2, 2, 2)
    barostat = StochasticCellRescaling(0.0, compressibility_per_bar=1e-6)
    replicas = Replicas(model, [atoms], thermostat="bussi", temperature_k=NPT_K, barostat=barostat, timestep_fs=1.0)
    lengths: list[float] = []
    steps = round(NPT_PS * 1000)
    replicas.run(steps, observe=lambda now: lengths.append(now.atoms(0).get_volume() ** (1 / 3) / 2))
    half = lengths[len(lengths) // 2 :]
    ended = "ran to the end" if replicas.running else "exploded"
    return {"a_mean": float(np.mean(half)), "a_spread": float(np.std(half)), "steps": steps, "ended": ended}


def main() -> None:
    """Both trainings, and what their models say."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--steps", type=int, default=1500)
    given = options.parse_args()
    results: dict[str, Any] = {"steps": given.steps, "literature": LITERATURE}
    for name, weight in (("with stresses", 1.0), ("without", 0.0)):
        with tempfile.TemporaryDirectory() as folder:
            model, errors = trained(given.data, Path(folder), weight, given.steps)
        found = mechanics(model)
        results[name] = {"errors": errors, **found, "at 300 K": at_constant_pressure(model, found["a"])}
        print(name, json.dumps(results[name]), flush=True)
        write_text(given.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
