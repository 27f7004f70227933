import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache
from sdas.errors import SdasError
from sdas.evaluate import load_evaluation
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
    result = run(run_dir / "model", tmp_path / "cache", "--out", tmp_path / "out", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n_frames"] == 10
    assert not (run_dir / "evaluation.json").exists()


def test_a_model_directory_is_no_place_for_results(run_dir, tmp_path):
    """It is replaced as a whole when the model is saved again."""
    result = run(run_dir / "model", tmp_path / "cache")
    assert isinstance(result.exception, SdasError)
    assert "model is a model directory, which holds the model alone: name a folder with --out" in str(result.exception)


def test_a_model_alone_has_no_test_frames(run_dir, tmp_path):
    result = run(run_dir / "model", "--out", tmp_path / "out")
    assert isinstance(result.exception, SdasError)
    assert "name files of labelled frames after it" in str(result.exception)


def test_a_flag_about_files_needs_files(run_dir):
    result = run(run_dir, "--isolated-atoms")
    assert isinstance(result.exception, SdasError)
    assert "--isolated-atoms is for files" in str(result.exception)


def test_several_files_in_one_table(run_dir, tmp_path):
    """A row per file as it was named, a row per kind, and all; the numbers are those of each file by itself."""
    write_cache(frames(4), tmp_path / "few")
    named = [replace(frame, config_type=kind) for frame, kind in zip(frames(6), "aababb", strict=True)]
    write_cache(named, tmp_path / "kinds")
    paths = [str(tmp_path / "few"), str(tmp_path / "kinds")]
    result = run(run_dir, *paths)
    assert result.exit_code == 0, result.output
    together = json.loads((run_dir / "evaluation.json").read_text())
    assert list(together["by_file"]) == paths
    assert {name: row["n_frames"] for name, row in together["by_config_type"].items()} == {
        "without a name": 4, "a": 3, "b": 3,
    }  # fmt: skip
    cells = [line.split() for line in result.output.splitlines()]
    for path in paths:
        run(run_dir, path, "--out", tmp_path / "alone")
        alone = json.loads((tmp_path / "alone" / "evaluation.json").read_text())
        keys = [f"energy_{kind}_mev_per_atom" for kind in ("mae", "rmse")]
        keys += [f"force_{kind}_mev_per_ang" for kind in ("mae", "rmse")]
        assert together["by_file"][path] == pytest.approx({key: alone[key] for key in together["by_file"][path]})
        assert [path, str(alone["n_frames"]), *(f"{alone[key]:.2f}" for key in keys)] in cells
    assert ["all", "10"] in [line[:2] for line in cells]
    load_evaluation(run_dir)
