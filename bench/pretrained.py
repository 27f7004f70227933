"""Make the potentials that the package ships: `python bench/pretrained.py --data DATA [--only aspirin]`.

DATA has the folder rmd17. Each model has the frames and the recipe of `sdas demo`, and one layer more: in runs as long
as this the number of training frames is the limit, and depth helps there. Where bench/active/hot.py has labelled hotter
frames of the molecule, they train too. A run that has ended is not run again. The model goes to python/sdas/potentials
with its card and a test frame, and README.md there is the table of all cards.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from sdas import potentials
from sdas.config import parse_config
from sdas.config.load import load_data_config
from sdas.data import Frame, read_frames
from sdas.data.writing import write_frames
from sdas.demo import N_TRAIN, N_VALIDATION, PATIENT_RECIPE
from sdas.evaluate import evaluate
from sdas.files import write_text
from sdas.run.checkpoint import read_model_document, save_model
from sdas.run.folder import CONFIG, SUMMARY
from sdas.run.frames import open_data
from sdas.run.model import load_run_model
from sdas.train import train
from sdas.train.inner_cutoffs import with_inner_cutoff

MOLECULES = ("ethanol", "aspirin", "malonaldehyde", "uracil")
LAYERS = 3
HOT = Path(__file__).parent / "results" / "active" / "hot"
"""Frames of bench/active/hot.py, which train too. Their forces are up to 30 eV/Å: in full they would count too much."""
WEIGHTS = {"hot": 0.1}
DATA = {
    "data": "rMD17, split 01: 950 of its training frames train and 50 validate, all 1000 test frames test",
    "level_of_theory": "PBE/def2-SVP",
    "license": "CC0 1.0, the data; MIT, the model",
    "citation": "A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)",
}
ERRORS = ("force_mae_mev_per_ang", "force_rmse_mev_per_ang", "energy_mae_mev", "energy_rmse_mev")


def run(molecule: str, data: Path, runs: Path, minutes: float) -> Path:
    """The folder of the training of a molecule; one that was stopped goes on."""
    folder = runs / molecule
    if (folder / SUMMARY).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    frames = list(read_frames(data / "rmd17" / f"rmd17_{molecule}_train_01.npz", units="kcal/mol"))
    order = np.random.default_rng(0).permutation(len(frames))
    parts = {"train": order[:N_TRAIN], "validation": order[N_TRAIN : N_TRAIN + N_VALIDATION]}
    files = {name: runs / f"{molecule}_{name}.extxyz" for name in parts}
    for name, chosen in parts.items():
        write_frames(files[name], [(frames[k], {}) for k in chosen])
    hot = HOT / f"{molecule}.extxyz"
    more, weights = ([str(hot)], WEIGHTS) if hot.is_file() else ([], {})
    content = {
        "run_dir": str(folder),
        "data": {"path": [str(files["train"]), *more], "validation": str(files["validation"])},
        "model": {"layers": LAYERS},
        "train": {
            **PATIENT_RECIPE,
            "minutes": minutes,
            "threads": 1,
            "device": "cpu",
            "config_type_weights": weights,
        },
    }
    train(parse_config(content, "bench/pretrained.py"), resume=(folder / CONFIG).is_file())
    return folder


def ship(molecule: str, data: Path, folder: Path, minutes: float) -> None:
    """Test the model of a run, and write it with its card and the first test frame into the package."""
    summary = json.loads((folder / SUMMARY).read_text())
    cache, split = open_data(load_data_config(folder / CONFIG), folder)
    frames = list(read_frames(data / "rmd17" / f"rmd17_{molecule}_test_01.npz", units="kcal/mol"))
    model, errors, short_range = guarded(load_run_model(folder), [cache[k] for k in split.train.tolist()], frames)
    card = {
        "molecule": molecule,
        **DATA,
        "hot_frames": len(split.train) - N_TRAIN,
        "errors_on_1000_test_frames": errors,
        "short_range": short_range,
        "training": {name: summary[name] for name in ("steps", "wall_s", "train_flops", "parameters", "machine")},
        "command": f"python bench/pretrained.py --data DATA --only {molecule} --minutes {minutes:g}",
    }
    save_model(potentials.FOLDER / molecule, model, card)
    ase.io.write(potentials.FOLDER / f"{molecule}.extxyz", labelled(frames[0]))


def guarded(model: Any, trained: list[Frame], test: list[Frame]) -> tuple[Any, dict[str, float], str]:
    """The model with inner cutoffs, its errors, and what its card says of them; without where errors would change."""
    safe = with_inner_cutoff(model, trained)
    metrics = [evaluate(each, test, 20).metrics for each in (safe, model)]
    found, plain = ({name: each[name] for name in ERRORS} for each in metrics)
    if found == plain:
        return safe, found, "inner cutoffs from the training frames; no error on a test frame changes"
    return model, plain, "no inner cutoffs: a test frame has closer atoms than all training frames"


def labelled(frame: Frame) -> Atoms:
    """A molecule with its reference energy and forces."""
    atoms = Atoms(frame.numbers, frame.positions)
    atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
    return atoms


def table(cards: dict[str, dict[str, Any]]) -> str:
    """README.md of the folder of potentials."""
    lines = [
        "# Potentials shipped with sdas\n",
        '`sdas.pretrained("ethanol")` loads one. Written by `python bench/pretrained.py`; every `model.json` holds its',
        "card. Errors are those on all 1000 test frames of split 01, which trained nothing. They",
        "chose one thing: a potential ships without inner cutoffs if these would change an error.\n",
        "| molecule | force MAE, meV/Å | force RMSE, meV/Å | energy MAE, meV | hot | inner cutoffs | TFLOP | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, card in cards.items():
        errors, training = card["errors_on_1000_test_frames"], card["training"]
        values = [
            name,
            *(f"{errors[key]:.2f}" for key in ERRORS[:3]),
            str(card.get("hot_frames", 0)),
            "no" if card["short_range"].startswith("no ") else "yes",
            f"{training['train_flops'] / 1e12:.1f}",
            f"{training['wall_s'] / 60:.0f}",
        ]
        lines.append("| " + " | ".join(values) + " |")
    first = next(iter(cards.values()))
    return "\n".join(
        [
            *lines,
            f"\nData: {first['data']}. Level of theory: {first['level_of_theory']}.",
            "Those frames hold molecules near 500 K. Hot frames are others, of hotter molecules, which train too:",
            "bench/active/hot.py chose and labelled them.",
            "Each potential knows its own molecule only. Inner cutoffs keep atoms apart that are closer than in all",
            "training frames. Where a test frame has closer atoms, the potential ships without them.\n",
            f"License: {first['license']}. Cite:\n\n> {first['citation']}, arXiv:2007.09593.\n",
        ]
    )


def main() -> None:
    """Train what is missing, ship it, and write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--runs", type=Path, default=Path("build/pretrained"))
    options.add_argument("--only", nargs="+", choices=MOLECULES, default=list(MOLECULES))
    options.add_argument("--minutes", type=float, default=10.0)
    given = options.parse_args()
    for molecule in given.only:
        ship(molecule, given.data, run(molecule, given.data, given.runs, given.minutes), given.minutes)
    there = sorted(path.parent for path in potentials.FOLDER.glob("*/model.json"))
    cards = {folder.name: read_model_document(folder)["extra"] for folder in there}
    write_text(potentials.FOLDER / "README.md", table(cards))


if __name__ == "__main__":
    main()
