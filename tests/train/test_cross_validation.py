"""Cross-validation trains every pair on every fold and chooses by the score it states."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import CrossValidationConfig, load_config
from sdas.errors import TrainingError
from sdas.train import cross_validation
from sdas.train.cross_validation import cross_validate
from sdas.train.loop import finish, fit
from sdas.train.session import Session, TrainingData


def test_the_pair_with_the_best_score_is_chosen(make_config, monkeypatch):
    config = make_config("grid")
    config.cross_validation = CrossValidationConfig(folds=2, steps=5, energy_weight=[0.0, 1.0], forces_weight=[1.0])
    seen = []

    def recording(run, frames, train, validation, processes):
        seen.append((run.train.energy_weight, set(train.tolist()), set(validation.tolist())))
        return fit(run, frames, train, validation, processes)

    monkeypatch.setattr(cross_validation, "fit", recording)
    found = cross_validate(config)
    split = json.loads((found.config_path.parent / "split.json").read_text())
    assert len(seen) == 4
    for _, train, validation in seen:
        assert train | validation == set(split["train"])
        assert not train & validation
    assert seen[0][2] | seen[1][2] == set(split["train"])
    with open(found.config_path.parent / "cross_validation.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["energy_weight"] for row in rows] == [0.0, 1.0]
    for row in rows:
        assert row["score"] == pytest.approx(np.sqrt(row["energy_mae_mev_per_atom"] * row["force_mae_mev_per_ang"]))
    best = min(rows, key=lambda row: row["score"])
    chosen = load_config(found.config_path)
    assert chosen.train.energy_weight == best["energy_weight"]
    assert chosen.train.steps == config.train.steps
    assert len(found.text().splitlines()) == 3


def test_one_that_is_stopped_goes_on_where_it_was(make_config, monkeypatch, tmp_path):
    """By the command that it says; each short run is trained once, and the table is that of one that was left alone."""
    grid = CrossValidationConfig(folds=2, steps=5, energy_weight=[1.0, 2.0])
    alone = make_config("alone").model_copy(update={"cross_validation": grid})
    wanted = cross_validate(alone).rows
    steps = []

    def stopping(run, *rest):
        with Session(run, TrainingData(*rest[:3]), rest[3]) as session:
            steps.append(session.progress.step)
            if len(steps) == 2:
                signal.raise_signal(signal.SIGINT)
            return finish(session, session.advance(session.end) and bool(session.validate()), {})

    monkeypatch.setattr(cross_validation, "fit", stopping)
    config = make_config("stopped").model_copy(update={"cross_validation": grid})
    with pytest.raises(TrainingError, match="stopped by signal 2; go on with 'sdas train --cross-validate") as told:
        cross_validate(config)
    with pytest.raises(TrainingError, match="resume it with --cross-validate --resume"):
        cross_validate(config)
    command = re.search(r"'sdas (.*)'", str(told.value))
    assert command is not None
    result = CliRunner().invoke(app, shlex.split(command[1]))
    assert result.exit_code == 0, result.output
    assert steps == [0, 0, 5, 1, 0, 0]
    with open(tmp_path / "stopped" / "cross_validation.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == wanted


def test_more_folds_than_frames_are_refused(make_config):
    config = make_config()
    config.cross_validation = CrossValidationConfig(folds=25, steps=1)
    with pytest.raises(TrainingError, match="25 folds of 24 training frames"):
        cross_validate(config)


def test_every_label_that_is_there_counts_for_the_score(make_config, mixed_cache_path):
    config = make_config(data={"path": str(mixed_cache_path)})
    names = ("energy_mae_mev_per_atom", "force_mae_mev_per_ang", "stress_mae_mev_per_ang3")
    config.cross_validation = CrossValidationConfig(folds=2, steps=2, energy_weight=[1.0], stress_weight=[0.1, 10.0])
    rows = cross_validate(config).rows
    assert [row["stress_weight"] for row in rows] == [0.1, 10.0]
    for row in rows:
        assert row["score"] == pytest.approx(np.prod([row[name] for name in names]) ** (1 / 3))


def test_a_criterion_that_no_frame_has_is_refused(make_config):
    config = make_config()
    config.cross_validation = CrossValidationConfig(folds=2, steps=1, energy_weight=[1.0], criterion="stress")
    with pytest.raises(TrainingError, match="criterion is stress, but the training frames have no stress"):
        cross_validate(config)
