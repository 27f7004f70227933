"""No command removes or replaces a file that it did not write."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import sdas.demo
from sdas.cli import app
from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache
from sdas.errors import CheckpointError, SdasError
from sdas.run.checkpoint import load_model, save_model
from sdas.train import train

MODEL = {"channels": 4, "heads": 2, "lmax": 1, "layers": 1, "cutoff": 3.0, "n_radial": 3}


def water(count=10):
    rng = np.random.default_rng(4)
    ideal = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    for k in range(count):
        positions, forces = ideal + rng.normal(scale=0.05, size=(3, 3)), 0.1 * rng.normal(size=(3, 3))
        yield Frame(np.array([8, 1, 1]), positions, None, np.zeros(3, bool), 0.1 * k, forces, None, f"made: frame {k}")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def make_config(tmp_path):
    def make(run, data, sizes=(6, 2, 2)):
        settings = {"steps": 2, "batch_size": 2, "device": "cpu"}
        files = {"path": str(data), "split": {"sizes": list(sizes)}}
        return parse_config({"run_dir": str(run), "data": files, "model": MODEL, "train": settings}, "test")

    return make


@pytest.fixture
def raw_file(tmp_path):
    rows = []
    for frame in water():
        rows += ["3", f'Properties=species:S:1:pos:R:3:forces:R:3 energy={frame.energy} pbc="F F F"']
        for symbol, r, f in zip("OHH", frame.positions, frame.forces, strict=True):
            rows.append(f"{symbol} " + " ".join(f"{x:.8f}" for x in (*r, *f)))
    (tmp_path / "water.xyz").write_text("\n".join(rows) + "\n")
    return tmp_path / "water.xyz"


def test_a_cache_of_the_user_named_frames_is_not_removed(make_config, tmp_path):
    """A project folder that is the run directory too."""
    project = tmp_path / "project"
    write_cache(water(), project / "frames")
    config = make_config(project, project / "frames")
    (project / "config.yaml").write_text(render_config(config))
    before = content(project)
    with pytest.raises(SdasError, match="frames: no run made it there, so it is left alone; choose another run_dir"):
        train(config)
    assert content(project) == before


@pytest.mark.parametrize("text", ["theme: dark\n", "just words", "a: [1"])
def test_a_config_of_something_else_is_not_replaced(make_config, tmp_path, text):
    write_cache(water(), tmp_path / "cache")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text(text)
    with pytest.raises(SdasError, match="it is of no run and left alone; choose another run_dir"):
        train(make_config(tmp_path / "site", tmp_path / "cache"))
    assert (tmp_path / "site" / "config.yaml").read_text() == text


def test_a_start_that_failed_after_its_conversion_can_be_made_again(make_config, tmp_path, raw_file):
    with pytest.raises(SdasError, match="there are 10 to divide"):
        train(make_config(tmp_path / "run", raw_file, sizes=(60, 2, 2)))
    assert not (tmp_path / "run" / "frames").exists()
    assert train(make_config(tmp_path / "run", raw_file)).summary["status"] == "complete"
    assert (tmp_path / "run" / "frames").is_dir()


def test_a_model_is_not_saved_over_a_folder_of_other_things(make_model, tmp_path):
    save_model(tmp_path / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    (tmp_path / "model" / "thesis.tex").write_text("precious")
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds thesis.tex, which saving would remove: move it elsewhere"):
        save_model(tmp_path / "model", make_model(channels=2, heads=2, lmax=1, layers=1))
    assert content(tmp_path) == before
    load_model(tmp_path / "model")


def test_training_says_so_before_it_begins(make_config, tmp_path):
    write_cache(water(), tmp_path / "cache")
    config = make_config(tmp_path / "run", tmp_path / "cache")
    train(config)
    (tmp_path / "run" / "model" / "notes.txt").write_text("precious")
    config.train.steps = 4
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=r"model: holds notes.txt"):
        train(config, resume=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("place", ["notes.txt", "md/analysis.csv"])
def test_a_fresh_demo_removes_nothing_of_others(tmp_path, place):
    run = tmp_path / "run"
    (run / "md").mkdir(parents=True)
    (run / "config.yaml").write_text(render_config(sdas.demo.demo_config(1, run, 0, "cpu", 1, tmp_path)))
    (run / place).write_text("precious")
    if place == "notes.txt":
        (run / "md").rmdir()
    before = content(run)
    result = CliRunner().invoke(app, ["--debug", "demo", "--out", str(run), "--fresh"])
    assert isinstance(result.exception, SdasError)
    assert place.rpartition("/")[2] in str(result.exception)
    assert content(run) == before


def test_a_split_replaces_splits_only(tmp_path):
    write_cache(water(), tmp_path / "cache")
    words = ["data", "split", str(tmp_path / "cache"), "--sizes", "6,2,2", "--to"]
    (tmp_path / "thesis.tex").write_text("precious")
    result = CliRunner().invoke(app, [*words, str(tmp_path / "thesis.tex")])
    assert result.exit_code == 1
    assert "thesis.tex is there and is no split: choose another place with --to" in result.stderr
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    for _ in range(2):
        assert CliRunner().invoke(app, [*words, str(tmp_path / "split.json")]).exit_code == 0
