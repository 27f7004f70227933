"""`sdas active`: what it says, what it writes, and what it refuses before anything is trained."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.active_cli import new_run
from sdas.cli import app
from sdas.data import Frame, FrameCache, write_cache
from sdas.run.ledger import read_lines

SMALL = {
    "model.channels": 2, "model.heads": 1, "model.lmax": 1, "model.layers": 1, "train.steps": 4, "train.threads": 1,
    "train.batch_size": 2, "active.processes": 1, "active.simulation.interval_fs": 7,
    "active.simulation.temperature_k": 1000,
    "active.simulation.equilibration_fs": 2, "active.simulation.conformers": 1, "active.simulation.frames": 25,
}  # fmt: skip


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, **settings):
        given = [word for key, value in {**SMALL, **settings}.items() for word in ("--set", f"{key}={value}")]
        return CliRunner().invoke(app, ["active", *map(str, words), *given])

    return run


def test_a_molecule_is_learned_from_nothing(command, tmp_path):
    """Simulated by a force field, labeled by tight binding, with a page at the end; more rounds go on from there."""
    for package in ("rdkit", "tblite"):
        pytest.importorskip(package, reason=f"{package.upper()} ABSENT: pip install .[label]")
    settings = {"active.start_labels": 10, "run_dir": "runs/water"}
    result = command(
        "--smiles", "O", "--oracle", "tblite", "--rounds", 1, "--labels-per-round", 3, "--models", 2, **settings
    )
    assert result.exit_code == 0, result.output
    assert "runs/water: 1 rounds, 12 labels" in result.output
    folder = tmp_path / "runs" / "water"
    page, numbers = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())
    assert len(numbers["rounds"]) == 2
    assert numbers["cost"]["labels"] == 13
    assert page.count(", mmff O: frame ") == 3, "a picture of each selected frame"
    assert "is not at its end" not in page
    frames = FrameCache.open(folder / "rounds" / "001" / "frames")
    assert len(frames) == 13
    folder = folder.rename(tmp_path / "moved")
    result = CliRunner().invoke(app, ["active", "--resume", "moved", "--rounds", "2"])
    assert result.exit_code == 0, result.output
    assert "active.rounds (1 → 2)" in result.output
    assert "moved: 2 rounds, 15 labels" in result.output
    assert len(json.loads((folder / "report.json").read_text())["rounds"]) == 3
    assert len([line for line in read_lines(folder / "rounds.jsonl") if line["kind"] == "trained"]) == 3


def molecules(path, symbols, count=12):
    generator = np.random.default_rng(0)
    numbers = np.array(symbols, dtype=np.int64)
    line = 1.2 * np.arange(len(numbers))[:, None] * [1.0, 0, 0]
    frames = [
        Frame(
            numbers, line + 0.1 * generator.normal(size=(len(numbers), 3)), None, np.zeros(3, bool), None, None, None,
            f"frame {k}",
        )
        for k in range(count)
    ]  # fmt: skip
    write_cache(frames, path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no pool to select from: name a file of frames"),
        (["--smiles", "C1CC"], "C1CC"),
        (["odd"], "9 electrons at charge 0 have an even multiplicity"),
        (["heavy"], "GFN2-xTB has no U"),
        (["odd", "--oracle", "best"], "oracle 'best': must read"),
        (["odd", "--oracle", "hidden"], "which the oracle hidden would uncover"),
        (["odd", "--data", "odd"], "active.oracle is not set: name what made the labels"),
        (["even", "--data", "even", "--oracle", "tblite"], "nothing to learn from 11 training frames"),
        (["odd", "--labels-per-round", "13"], "the pool has 12 frames that can be used, fewer"),
        (["odd", "--models", "1"], "models must be at least 2"),
        (["odd", "--uncertainty", "shallow", "--set", "model.members=1"], "model.members must be at least 2 for a"),
        (["odd", "--uncertainty", "dropout", "--set", "train.dropout=0"], "train.dropout must be more than 0"),
        (["odd", "--uncertainty", "last-layer", "--set", "active.measure=forces"], "measure must be energy where"),
        (["odd", "--smiles", "CCO"], "pool and smiles are given"),
        (["odd", "heavy"], "give one pool"),
        (["absent"], "absent"),
        (["odd", "--select", "best"], "active.select"),
        (["--resume", "odd"], "odd"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words, message, command, tmp_path):
    if {"heavy", "odd", "even"} & set(words):
        pytest.importorskip("tblite", reason="TBLITE ABSENT: pip install .[label]")
        molecules(tmp_path / "odd", [6, 1, 1, 1])
        molecules(tmp_path / "heavy", [92, 6])
        molecules(tmp_path / "even", [8, 1, 1])
    result = command(*words, **({} if "--labels-per-round" in words else {"active.labels_per_round": 3}))
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert result.output.count("error: ") == 1
    assert not any((tmp_path / "runs").glob("*/*")), "nothing is left of a run that could not begin"
    assert not re.search("Traceback", result.output)


def test_a_pool_alone_begins_from_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    molecules(tmp_path / "pool", [8, 1])
    settings = new_run([tmp_path / "pool"], None, [], {})
    assert settings.data.files()["train"] == [str(tmp_path / "runs" / "pool" / "start")]
    assert (settings.train.steps, settings.train.minutes) == (2000, None)
    settings = new_run([tmp_path / "pool"], tmp_path / "pool", ["train.minutes=2"], {"active.oracle": "tblite"})
    assert settings.data.files()["train"] == [str(tmp_path / "pool")]
    assert (settings.train.steps, settings.train.minutes) == (None, 2.0)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("ensemble", {"models": 3, "measure": "forces", "members": 1, "dropout": 0.0}),
        ("shallow", {"models": 1, "measure": "forces", "members": 8, "dropout": 0.0}),
        ("dropout", {"models": 1, "measure": "forces", "members": 1, "dropout": 0.05}),
        ("last-layer", {"models": 1, "measure": "energy", "members": 1, "dropout": 0.0}),
    ],
)
def test_what_a_source_of_uncertainty_needs_is_set_unless_given(source, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    molecules(tmp_path / "pool", [8, 1])

    def found(*overrides):
        settings = new_run([tmp_path / "pool"], None, list(overrides), {"active.uncertainty": source})
        chosen = settings.active
        return {"models": chosen.models, "measure": chosen.measure, "members": settings.model.members} | {
            "dropout": settings.train.dropout
        }

    assert found() == wanted
    given = {"ensemble": ("active.models=5", "models", 5), "shallow": ("model.members=4", "members", 4)}
    given |= {"dropout": ("train.dropout=0.2", "dropout", 0.2), "last-layer": ("active.models=2", "models", 2)}
    override, name, value = given[source]
    assert found(override) == {**wanted, name: value}
