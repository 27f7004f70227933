import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache
from sdas.errors import SdasError
from sdas.run.checkpoint import save_model


def frames(count):
    rng = np.random.default_rng(4)
    ideal, no = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), np.zeros(3, dtype=bool)
    numbers = np.array([8, 1, 1])
    for k in range(count):
        positions, forces = ideal + rng.normal(scale=0.05, size=(3, 3)), rng.normal(size=(3, 3))
        yield Frame(numbers, positions, None, no, float(k), forces, None, f"made: frame {k}")


@pytest.fixture
def run_dir(make_model, tmp_path):
    """A run with a cache of ten frames, three of them for tests."""
    folder = tmp_path / "run"
    save_model(folder / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    write_cache(frames(10), tmp_path / "cache")
    data = {"path": str(tmp_path / "cache"), "split": {"sizes": [6, 1, 3]}}
    config = parse_config({"run_dir": str(folder), "data": data, "train": {"steps": 1}}, "test")
    (folder / "config.yaml").write_text(render_config(config))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["--debug", "evaluate", *(str(argument) for argument in arguments)])


def test_the_test_frames_of_the_run_are_the_default(run_dir):
    result = run(run_dir)
    assert result.exit_code == 0, result.output
    found = json.loads((run_dir / "evaluation.json").read_text())
    assert found["n_frames"] == 3
    assert f"{found['force_mae_mev_per_ang']:.2f} meV/Å" in result.output


def test_named_frames_and_another_folder(run_dir, tmp_path):
    result = run(run_dir / "model", "--data", tmp_path / "cache", "--out", tmp_path / "out", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n_frames"] == 10
    assert not (run_dir / "evaluation.json").exists()


def test_a_model_directory_is_no_place_for_results(run_dir, tmp_path):
    """It is replaced as a whole when the model is saved again."""
    result = run(run_dir / "model", "--data", tmp_path / "cache")
    assert isinstance(result.exception, SdasError)
    assert "model is a model directory, which holds the model alone: name a folder with --out" in str(result.exception)


def test_a_model_alone_has_no_test_frames(run_dir, tmp_path):
    result = run(run_dir / "model", "--out", tmp_path / "out")
    assert isinstance(result.exception, SdasError)
    assert "--data" in str(result.exception)
