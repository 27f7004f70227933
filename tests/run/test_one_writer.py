"""Every command that writes into a run folder leaves one alone that another command is writing to."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache
from sdas.run.checkpoint import save_model
from sdas.run.lock import FolderInUseError, locked


def water(count):
    rng = np.random.default_rng(4)
    ideal = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    for k in range(count):
        positions, forces = ideal + rng.normal(scale=0.05, size=(3, 3)), rng.normal(size=(3, 3))
        yield Frame(np.array([8, 1, 1]), positions, None, np.zeros(3, bool), float(k), forces, None, f"made: frame {k}")


@pytest.fixture
def run_dir(make_model, tmp_path):
    """A run with a model, a cache of ten frames, and a structure to start from."""
    folder = tmp_path / "run"
    save_model(folder / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    write_cache(water(10), tmp_path / "cache")
    data = {"path": str(tmp_path / "cache"), "split": {"sizes": [6, 1, 3]}}
    config = parse_config({"run_dir": str(folder), "data": data, "train": {"steps": 1}}, "test")
    (folder / "config.yaml").write_text(render_config(config))
    write(tmp_path / "water.xyz", Atoms("OHH", positions=next(water(1)).positions))
    return folder


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "train --resume RUN",
        "train RUN/config.yaml",
        "train RUN/config.yaml --cross-validate",
        "evaluate RUN",
        "evaluate RUN --data CACHE",
        "report RUN",
        "md RUN --structure WATER --out RUN --steps 2",
        "md RUN --structure WATER --out RUN --fresh",
        "demo --out RUN --fresh",
    ],
)
def test_a_folder_in_use_is_left_alone(run_dir, tmp_path, command):
    names = {"RUN": run_dir, "CACHE": tmp_path / "cache", "WATER": tmp_path / "water.xyz"}
    for name, path in names.items():
        command = command.replace(name, str(path))
    with locked(run_dir):
        before = content(run_dir)
        result = CliRunner().invoke(app, ["--debug", *command.split()])
        assert isinstance(result.exception, FolderInUseError), result.output
        assert content(run_dir) == before


def test_results_go_elsewhere_meanwhile(run_dir, tmp_path):
    with locked(run_dir):
        result = CliRunner().invoke(app, ["--debug", "evaluate", str(run_dir), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "predictions.npz"]
