"""A file as the tutorial of MACE has it trains with no option beyond its path.

It holds isolated atoms of every element and labels called REF_energy, REF_forces and REF_virials. The frames are real:
ethanol of rMD17, put into boxes so wide that no molecule sees another. So the virial of a frame is Σ r_i ⊗ F_i.
"""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

from sdas import cli
from sdas.config import train as train_section
from sdas.data import FrameCache, read_frames, sample

ATOMS = {"H": -13.5684, "C": -1025.2771, "O": -2035.5710}
"""eV: of the PBE functional, as the frames are."""
BOX = 14.0


def images(part: int, count: int, kind: str) -> list[Atoms]:
    made = []
    for frame, _ in zip(read_frames(sample("ethanol")[part]), range(count), strict=False):
        virial = frame.positions.T @ frame.forces
        atoms = Atoms(frame.numbers, frame.positions, cell=[BOX] * 3, pbc=True)
        atoms.info = {"config_type": kind, "REF_energy": frame.energy, "REF_virials": (virial + virial.T) / 2}
        atoms.set_array("REF_forces", frame.forces)
        made.append(atoms)
    return made


def isolated() -> list[Atoms]:
    made = [Atoms(symbol, info={"config_type": "IsolatedAtom", "REF_energy": e}) for symbol, e in ATOMS.items()]
    for atoms in made:
        atoms.set_array("REF_forces", np.zeros((1, 3)))
    return made


def sdas(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory; half an hour lasts three seconds there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_section, "DEFAULT_MINUTES", 0.05)
    ase.io.write("train.extxyz", [*isolated(), *images(0, 40, "MD")])
    ase.io.write("test.extxyz", [*isolated(), *images(1, 6, "warm"), *images(1, 12, "cold")[6:]])
    return tmp_path


def test_it_trains_and_is_tested(folder):
    said = sdas("train", "train.extxyz")
    assert "labels: energy from REF_energy; forces from REF_forces; stress from REF_virials" in said
    assert "36 train, 4 validation, 0 test" in said
    assert "stress of 36 frames" in said
    summary = json.loads(Path("runs/train/summary.json").read_text())
    assert summary["status"] == "complete"
    assert (summary["n_train"], summary["n_val"]) == (36, 4)
    assert summary["energy_reference"]["shifts_ev"] == pytest.approx(ATOMS)
    assert set(summary["last_validation"]) >= {"force_mae_mev_per_ang", "stress_mae_mev_per_ang3"}
    cache = FrameCache.open("runs/train/frames")
    wanted = images(0, 1, "MD")[0].info["REF_virials"] / -(BOX**3)
    np.testing.assert_allclose(cache[3].stress, wanted, atol=1e-9)

    said = sdas("evaluate", "runs/train", "test.extxyz")
    assert "left out: 3 isolated atoms; --isolated-atoms compares them too" in said
    found = json.loads(Path("runs/train/evaluation.json").read_text())
    assert {name: row["n_frames"] for name, row in found["by_config_type"].items()} == {"warm": 6, "cold": 6}
    assert found["stress_frames"] == 12
    assert "15 frames: " in sdas("evaluate", "runs/train", "test.extxyz", "--isolated-atoms")
    ase.io.write("atoms.extxyz", isolated())
    done = CliRunner().invoke(cli.app, ["evaluate", "runs/train", "atoms.extxyz"])
    assert "atoms.extxyz: isolated atoms alone" in done.stderr
