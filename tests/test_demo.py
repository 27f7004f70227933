import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import sdas.data
import sdas.demo
from sdas.errors import SdasError


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The shipped sample cut down to 60 and 30 frames, and the split to match."""
    files = []
    for path, count in zip(sdas.data.sample("ethanol"), (60, 30), strict=True):
        with np.load(path) as whole:
            frames = len(whole["energies"])
            cut = {name: value[:count] if len(value) == frames else value for name, value in whole.items()}
        files.append(tmp_path / path.name)
        np.savez(files[-1], **cut)
    monkeypatch.setattr(sdas.data, "sample", lambda name: tuple(files))
    monkeypatch.setattr(sdas.demo, "N_TRAIN", 40)
    monkeypatch.setattr(sdas.demo, "N_VALIDATION", 10)
    monkeypatch.setattr(sdas.demo, "MODEL", {"channels": 4, "heads": 4, "lmax": 1, "layers": 1, "cutoff": 4.0})
    return tmp_path / "run"


def run(*arguments):
    app = typer.Typer()
    app.command()(sdas.demo.demo)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_demo_goes_all_the_way_and_once_more(small):
    arguments = ("--minutes", 0.05, "--out", small, "--md-steps", 40)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    ahead, _, passed = result.output.partition("1/4")
    assert "about 1.05 minutes" in ahead
    assert "0.02 ps" in ahead
    assert str(small / "report.html") in ahead
    assert str(small / "report.html") in passed
    numbers = json.loads((small / "report.json").read_text())
    assert (numbers["n_train"], numbers["n_val"], numbers["n_test"]) == (40, 10, 30)
    assert numbers["force_mae_mev_per_ang"] > 0
    assert numbers["apr"] == pytest.approx(1000 / numbers["force_mae_mev_per_ang"] / numbers["train_flops"])
    assert numbers["md_drift_mev_per_atom_per_ps"] is not None
    assert "sdas demo --minutes 0.05" in (small / "report.html").read_text()

    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert json.loads((small / "report.json").read_text())["steps"] == numbers["steps"], (
        "a finished run is not trained on"
    )
    other = run("--minutes", 0.04, "--out", small, "--md-steps", 40)
    assert isinstance(other.exception, SdasError)
    assert "--fresh" in str(other.exception)


def test_fresh_removes_runs_only(small):
    small.mkdir()
    (small / "thesis.tex").write_text("")
    assert isinstance(run("--minutes", 0.01, "--out", small, "--fresh").exception, SdasError)
    assert (small / "thesis.tex").exists()


def test_the_recipe_is_a_valid_configuration(tmp_path):
    quick = sdas.demo.demo_config(1, tmp_path, 0, "cpu", 1, tmp_path)
    patient = sdas.demo.demo_config(60, tmp_path, 0, "cpu", 1, tmp_path)
    assert tuple(quick.data.split.sizes) == (950, 50, 0)
    assert quick.train.learning_rate > patient.train.learning_rate
