"""After a run went on training, nothing that was made of the earlier model passes for the later one's."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import render_config
from sdas.documents import read_document


def sdas(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def numbers(run):
    done = sdas("report", run)
    assert done.exit_code == 0, done.output
    return json.loads((run / "report.json").read_text())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_results_before_and_after_more_training(make_config, tmp_path):
    config = make_config("run", steps=6)
    run = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(render_config(config))
    (tmp_path / "start.xyz").write_text("3\n\nO 0 0 0\nH 1.1 0 0\nH 0.5 1.0 0\n")
    md = ("md", run, "--structure", tmp_path / "start.xyz", "--timestep", 0.05, "--every", 1)
    for words in (("train", tmp_path / "config.yaml"), ("evaluate", run), (*md, "--steps", 5)):
        done = sdas(*words)
        assert done.exit_code == 0, done.output
    first = numbers(run)
    assert first["notes"] == []
    assert first["apr"] == pytest.approx(1000 / first["force_mae_mev_per_ang"] / first["train_flops"])
    assert first["md_drift_mev_per_atom_per_ps"] is not None
    assert first["model_fingerprint"] == read_document(run / "summary.json")["model_fingerprint"]

    page = (run / "report.html").read_text()
    assert f"sdas evaluate {run}-again\nsdas report {run}-again" in page, "the commands of the report can be typed"

    assert sdas("train", "--resume", run, "--set", "train.steps=12").exit_code == 0
    second = numbers(run)
    assert (second["force_mae_mev_per_ang"], second["apr"], second["md_drift_mev_per_atom_per_ps"]) == (None,) * 3
    assert (second["steps"], len(second["notes"])) == (12, 2)
    refused = sdas(*md, "--steps", 8)
    assert refused.exit_code == 1
    for model in (first["model_fingerprint"], second["model_fingerprint"]):
        assert model[:12] in refused.stderr
    assert "--fresh" in refused.stderr

    for words in (("evaluate", run), (*md, "--steps", 8, "--fresh")):
        assert sdas(*words).exit_code == 0
    third = numbers(run)
    assert third["notes"] == []
    assert third["force_mae_mev_per_ang"] not in (None, first["force_mae_mev_per_ang"])
    assert third["md_drift_mev_per_atom_per_ps"] is not None
