"""What does it cost that atoms alone have their energies exactly, and what does it bring where a bond breaks?

    python bench/isolated_atoms.py --data ../shared/data --out bench/results/training/isolated_atoms.json

3BPA at 300 K: 400 frames train, 50 are tested, three seeds. Ethanol at 500 K: 900 frames train, then the hydrogen of
its hydroxyl group is drawn away from the rest, which stays as it is; the error is that of the energy at each distance.
Each with `energy_reference` isolated, and fit, which knows nothing of atoms alone. Frames lie in ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from training_sets import sdas

from sdas.data import read_frames
from sdas.data.isolated_atoms import isolated_energies
from sdas.files import write_text
from sdas.md import SDASCalculator

REFERENCES = ("isolated", "fit")
STEPS, SEEDS = 1000, (0, 1, 2)
ERRORS = ("energy_mae_mev_per_atom", "force_mae_mev_per_ang", "energy_mae_mev")


def trained(files: list[Path], sizes: list[int], reference: str, seed: int, run: Path) -> dict[str, Any]:
    """One run as users make it, and the errors of its test frames; the folder of the run is left."""
    settings = {"run_dir": run, "train.steps": STEPS, "train.seed": seed, "train.energy_reference": reference}
    settings |= {"train.threads": 1, "data.split": json.dumps({"sizes": sizes, "seed": 0})}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    sdas("train", *map(str, files), *words)
    sdas("evaluate", str(run))
    found = json.loads((run / "evaluation.json").read_text())
    flops = json.loads((run / "summary.json").read_text())["train_flops"]
    return {**{name: round(found[name], 3) for name in ERRORS}, "train_flops": flops}


def lone_errors(run: Path, atoms: Path) -> dict[str, float]:
    """Energies of atoms alone, beyond the true ones, in meV by element."""
    calculator, errors = SDASCalculator(run), {}
    for number, energy in isolated_energies(list(read_frames(atoms)))[0].items():
        one = ase.Atoms([number], calculator=calculator)
        errors[one.get_chemical_formula()] = round(1e3 * (one.get_potential_energy() - energy), 3)
    return errors


def broken_bond(run: Path, path: Path) -> dict[str, float]:
    """Errors in eV of the energy, by the O–H distance in Å."""
    calculator, errors = SDASCalculator(run), {}
    for frame in ase.io.read(path, ":")[::6]:
        bare = ase.Atoms(frame.numbers, frame.positions, calculator=calculator)
        errors[f"{frame.get_distance(2, 8):.2f}"] = round(bare.get_potential_energy() - frame.get_potential_energy(), 3)
    return errors


def main() -> None:
    """All runs, some two minutes on one core."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    bpa, ethanol = given.data / "3bpa", given.data / "ethanol_dft"
    with tempfile.TemporaryDirectory() as folder:
        for reference in REFERENCES:
            rows = []
            for seed in SEEDS:
                run, files = Path(folder) / f"3bpa-{reference}-{seed}", [bpa / "train_300K.xyz", bpa / "iso_atoms.xyz"]
                row = trained(files, [400, 50, 50], reference, seed, run)
                rows.append(row | {"atoms_alone_mev": lone_errors(run, bpa / "iso_atoms.xyz")})
                print(reference, seed, rows[-1], flush=True)
            mean = {name: round(float(np.mean([row[name] for row in rows])), 3) for name in ERRORS}
            run = Path(folder) / f"ethanol-{reference}"
            row = trained([ethanol / "train.xyz", ethanol / "isolated_atoms.xyz"], [900, 50, 50], reference, 0, run)
            row |= {"error_ev_by_distance": broken_bond(run, ethanol / "test_H_removal.xyz")}
            print(reference, row, flush=True)
            results[f"energy_reference {reference}"] = {"3bpa": {"mean": mean, "seeds": rows}, "ethanol": row}
            write_text(given.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
