"""A run leaves what it promises, learns, counts its FLOPs truly, and stops as it should."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdas.data import DataError, FrameCache, write_cache
from sdas.documents import read_document
from sdas.errors import ConfigError, TrainingError
from sdas.run.checkpoint import load_model, load_training_state, read_model_document
from sdas.train import session, train
from sdas.train.flop_model import FlopModel
from sdas.train.order import FrameOrder
from sdas.train.rows import COLUMNS, read_rows
from sdas_kernels.flops import FlopCounter
from sdas_kernels.graph import NeighborGraph


def test_a_run_leaves_all_its_files(make_config):
    result = train(make_config())
    folder = result.run_dir
    names = {"config.yaml", "split.json", "metrics.csv", "checkpoints", "model", "summary.json"}
    assert names <= set(os.listdir(folder))
    summary = read_document(folder / "summary.json")
    assert summary == json.loads(json.dumps(result.summary))
    assert summary["status"] == "complete"
    assert (summary["steps"], summary["n_train"], summary["n_val"], summary["n_test"]) == (12, 24, 8, 8)
    assert summary["train_flops"] > 0
    assert summary["flops_unknown"] == []
    assert {"sdas", "torch", "clebsch_gordan"} <= set(summary["versions"])
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["6", "12"]
    assert tuple(rows[0]) == COLUMNS
    assert {name for row in rows for name, value in row.items() if not value} == {"val_stress_mae_mev_per_ang3"}
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)
    assert float(rows[1]["epoch"]) == 2.0
    assert int(rows[1]["train_flops"]) == summary["train_flops"]
    assert read_model_document(folder / "model")["extra"]["training"]["steps"] == 12
    assert load_training_state(folder / "checkpoints").step == 12


@pytest.mark.parametrize("budget", [{"batch_atoms": 10}, {"batch_edges": 24}])
def test_a_run_by_a_budget_of_atoms_or_edges_sees_every_frame_once_an_epoch(make_config, monkeypatch, budget):
    seen, step = [], session.Session._step

    def watched(self, counts_all):
        indices = self._order.batch(self.progress.step)
        unit, most = self.config.train.batch_budget
        assert self._store.costs(indices, unit).sum() <= most
        seen.extend(indices.tolist())
        step(self, counts_all)

    monkeypatch.setattr(session.Session, "_step", watched)
    result = train(make_config(batch_size=None, steps=24, **budget))
    used = json.loads((result.run_dir / "split.json").read_text())["train"]
    assert sorted(seen[: len(used)]) == sorted(seen[len(used) : 2 * len(used)]) == sorted(used)
    assert result.summary["status"] == "complete"
    epochs = [float(row["epoch"]) for row in read_rows(result.run_dir)]
    assert epochs[-1] == pytest.approx(len(seen) / len(used))


def test_a_frame_beyond_the_budget_is_named(make_config):
    with pytest.raises(TrainingError, match=r"train.batch_atoms 3 is less than the 4 atoms of frame \d+: raise it"):
        train(make_config(batch_size=None, batch_atoms=3))


def test_the_saved_model_has_the_validation_error_that_the_run_tells(make_config):
    result = train(make_config())
    model = load_model(result.run_dir / "model")
    frames = FrameCache.open(make_config().data.path)
    validation = json.loads((result.run_dir / "split.json").read_text())["validation"]
    energy, force = [], []
    for index in validation:
        frame = frames[index]
        out = model(NeighborGraph.build(frame.positions.copy(), frame.numbers, 3.0, dtype=torch.float64))
        energy.append(abs(out["energy"].item() - frame.energy))
        force.append(np.abs(out["forces"].detach().numpy() - frame.forces).ravel())
    last = result.summary["last_validation"]
    assert last["energy_mae_mev"] == pytest.approx(1e3 * np.mean(energy), rel=1e-9)
    sizes = [len(frames[index]) for index in validation]
    assert last["energy_mae_mev_per_atom"] == pytest.approx(1e3 * np.mean(np.divide(energy, sizes)), rel=1e-9)
    assert last["force_mae_mev_per_ang"] == pytest.approx(1e3 * np.concatenate(force).mean(), rel=1e-9)


def test_training_lowers_the_errors(make_config):
    result = train(make_config(steps=60, validate_every=5))
    rows = read_rows(result.run_dir)
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert result.summary["last_validation"]["force_mae_mev_per_ang"] < float(rows[0]["val_force_mae_mev_per_ang"])
    assert result.summary["best_validation"]["force_mae_mev_per_ang"] == min(
        float(row["val_force_mae_mev_per_ang"]) for row in rows
    )


@pytest.mark.parametrize(("cache", "batch_size", "steps"), [("cache_path", 4, 14), ("mixed_cache_path", 1, 30)])
def test_flops_are_those_of_counting_every_step(make_config, monkeypatch, request, cache, batch_size, steps):
    data, settings = {"path": str(request.getfixturevalue(cache))}, {"batch_size": batch_size, "steps": steps}
    counted = []

    class Recording(FlopCounter):
        def __init__(self):
            super().__init__()
            counted.append(self)

    monkeypatch.setattr(session, "FlopCounter", Recording)
    few = train(make_config("few", data, **settings)).summary["train_flops"]
    assert len(counted) <= (6 if batch_size > 1 else 24)
    assert not any(counter.unknown for counter in counted)
    monkeypatch.setattr(FlopModel, "needs_count", lambda self, *size: True)
    counted.clear()
    every = train(make_config("every", data, **settings)).summary["train_flops"]
    assert len(counted) == steps
    assert few == every == sum(counter.total for counter in counted)


def test_the_first_loss_is_the_published_one(make_config):
    config = make_config(steps=1, validate_every=1, energy_weight=0.3, forces_weight=0.7)
    result = train(config)
    frames = FrameCache.open(config.data.path)
    split = json.loads((result.run_dir / "split.json").read_text())
    training = [frames[i] for i in split["train"]]
    s = np.sqrt(np.mean(np.concatenate([frame.forces.ravel() for frame in training]) ** 2))
    groups = [[f.energy / n for f in training if len(f) == n] for n in (2, 3, 4)]  # one composition of each size
    weight, means = np.sqrt([len(group) for group in groups]), np.array([np.mean(group) for group in groups])
    fractions = np.array([[1 / 2, 1 / 2], [2 / 3, 1 / 3], [1 / 2, 1 / 2]])  # of H and O
    rest = weight * (means - fractions @ np.linalg.lstsq(weight[:, None] * fractions, weight * means, rcond=None)[0])
    s_energy = max(s, 10 * np.sqrt(np.sum(rest**2) / len(training)))
    assert result.summary["loss_unit_ev"] == pytest.approx(s)
    assert result.summary["loss_energy_unit_ev"] == pytest.approx(s_energy)
    torch.manual_seed(0)
    model, _ = session.build_model(config, frames, np.array(split["train"]))
    picked = [frames[int(i)] for i in FrameOrder(np.array(split["train"]), 4, 0).batch(0)]
    energy, force = [], []
    for frame in picked:
        out = model(NeighborGraph.build(frame.positions.copy(), frame.numbers, 3.0, dtype=torch.float64))
        energy.append((out["energy"].item() - frame.energy) / len(frame))
        force.append((out["forces"].detach().numpy() - frame.forces).ravel())
    loss = 0.3 * np.mean(np.square(energy)) / s_energy**2 + 0.7 * np.mean(np.square(np.concatenate(force))) / s**2
    assert float(read_rows(result.run_dir)[0]["loss"]) == pytest.approx(loss, rel=1e-9)


def test_minutes_end_a_run_by_time_and_drive_the_schedule(make_config):
    start = time.monotonic()
    result = train(make_config(minutes=0.02, validate_every=1))
    assert 1.2 <= result.summary["wall_s"] <= time.monotonic() - start
    rates = [float(row["learning_rate"]) for row in read_rows(result.run_dir)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * 1e-2


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_state_before(make_config):
    config = make_config(steps=400, learning_rate=1e200, clip_norm=1e30, schedule="constant")
    with pytest.raises(TrainingError, match=r"step \d+: the loss is .*kept in .*checkpoints"):
        train(config)
    state = load_training_state(os.path.join(config.run_dir, "checkpoints"))
    assert state.step >= 1
    assert not os.path.exists(os.path.join(config.run_dir, "model"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on(make_config, monkeypatch, number):
    real = session.learning_rate

    def interrupting(settings, step, progress):
        if step == 4:
            os.kill(os.getpid(), number)
        return real(settings, step, progress)

    before = signal.getsignal(number)
    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(session, "learning_rate", interrupting)
        result = train(config)
    assert result.summary["status"] == "interrupted"
    assert result.summary["signal"] == number
    assert signal.getsignal(number) is before
    stopped = load_training_state(result.run_dir / "checkpoints").step
    assert 5 <= stopped <= 6
    assert train(config, resume=True).summary["status"] == "complete"


def test_starting_over_a_run_or_resuming_nothing_is_refused(make_config):
    config = make_config(steps=1)
    with pytest.raises(TrainingError, match="no run to resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(TrainingError, match="not empty; resume it with --resume"):
        train(config)


def test_a_run_that_failed_before_it_began_is_started_anew(make_config):
    config = make_config(steps=1)
    config.model.options = {"no_such_switch": 1}
    with pytest.raises(ConfigError):
        train(config)
    assert os.listdir(config.run_dir)
    config.model.options = {}
    assert train(config).summary["status"] == "complete"


@pytest.mark.parametrize("left", [".config.yaml.partial-0123abcd", ".frames.partial-0123abcd/meta.json"])
def test_a_run_that_was_killed_while_it_wrote_is_started_anew(make_config, left):
    config = make_config(steps=1)
    path = Path(config.run_dir, left)
    path.parent.mkdir(parents=True)
    path.write_text("half")
    if path.parent != Path(config.run_dir):
        Path(config.run_dir, "config.yaml").write_text("")
    train(config)
    assert not [name for name in os.listdir(config.run_dir) if name.startswith(".")]


def test_raw_files_are_converted_once(make_config, tmp_path):
    text = "".join(
        f"2\nProperties=species:S:1:pos:R:3:forces:R:3 energy={-5.0 + 0.01 * k}\nO 0 0 0 {0.1 * k} 0 0.5\n"
        f"H 0 0 {0.9 + 0.02 * k} {-0.1 * k} 0 -0.5\n"
        for k in range(12)
    )
    path = tmp_path / "frames.xyz"
    path.write_text(text)
    config = make_config(data={"path": str(path), "split": {"sizes": [0.5, 0.25, 0.25]}}, steps=2)
    result = train(config)
    assert (result.summary["n_train"], result.summary["n_val"], result.summary["n_test"]) == (6, 3, 3)
    path.unlink()
    assert train(config, resume=True).summary["status"] == "complete"


def test_frames_without_any_label_are_refused(make_config, tmp_path, cache_path):
    frame = replace(FrameCache.open(cache_path)[0], energy=None, forces=None, source="bare frame")
    write_cache([frame] * 10, tmp_path / "bare")
    with pytest.raises(
        TrainingError, match="nothing to learn from 8 training frames; not trained on: energy, which no"
    ):
        train(make_config(data={"path": str(tmp_path / "bare"), "split": {"sizes": [8, 2, 0]}}))
    write_cache([*FrameCache.open(cache_path)[:9], frame], tmp_path / "one")
    with pytest.raises(DataError, match="bare frame: no energy, forces or stress"):
        train(make_config("two", data={"path": str(tmp_path / "one"), "split": {"sizes": [8, 2, 0]}}))


@pytest.mark.parametrize(("label", "there"), [("energy", "forces"), ("forces", "energy")])
def test_frames_with_one_label_train_on_it_and_tell_its_error(make_config, tmp_path, cache_path, label, there, capsys):
    frames = FrameCache.open(cache_path)
    write_cache([replace(frame, **{label: None}) for frame in frames], tmp_path / "one")
    result = train(make_config(data={"path": str(tmp_path / "one")}, steps=40, validate_every=10))
    name = {"energy": "energy_mae_mev_per_atom", "forces": "force_mae_mev_per_ang"}
    rows = read_rows(result.run_dir)
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert {row[f"val_{name[label]}"] for row in rows} == {""}
    errors = [float(row[f"val_{name[there]}"]) for row in rows]
    assert errors[-1] == result.summary["last_validation"][name[there]] < errors[0]
    assert result.summary["best_validation"][name[there]] == min(errors)
    assert f"trained on: {there} of 24 frames; not on: {label}, which no frame has" in capsys.readouterr().err


def test_energies_alone_cost_less_than_energies_and_forces(make_config, tmp_path, cache_path):
    write_cache([replace(frame, forces=None) for frame in FrameCache.open(cache_path)], tmp_path / "energies")
    flops = [
        train(make_config(name, data={"path": str(path)}, steps=4)).summary["train_flops"]
        for name, path in (("both", cache_path), ("one", tmp_path / "energies"))
    ]
    assert flops[1] < 0.6 * flops[0]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_batch_without_anything_that_is_trained_costs_nothing(make_config, mixed_cache_path, optimizer):
    data, settings = {"path": str(mixed_cache_path)}, {"batch_size": 1, "steps": 24, "validate_every": 1}
    result = train(make_config(data=data, optimizer=optimizer, energy_weight=0.0, **settings))
    empty = [row for row in read_rows(result.run_dir) if float(row["loss"]) == 0]
    split = json.loads((result.run_dir / "split.json").read_text())
    assert len(empty) == sum(FrameCache.open(mixed_cache_path)[index].forces is None for index in split["train"]) > 0


def test_the_weights_of_frames_and_their_types_are_in_the_loss(make_config, tmp_path, cache_path):
    frames = [replace(frame, weight=0.5, config_type="gas") for frame in FrameCache.open(cache_path)]
    write_cache(frames, tmp_path / "weighted")
    settings = {"steps": 1, "validate_every": 1}
    plain, halves, back = (
        float(read_rows(train(make_config(name, data={"path": str(path)}, **settings, **more)).run_dir)[0]["loss"])
        for name, path, more in (
            ("plain", cache_path, {}),
            ("halves", tmp_path / "weighted", {}),
            ("back", tmp_path / "weighted", {"config_type_weights": {"gas": 2.0}}),
        )
    )
    assert (halves, back) == pytest.approx((plain / 2, plain), rel=1e-12)


def test_model_arguments_that_do_not_fit_are_named(make_config):
    config = make_config()
    config.model.options = {"no_such_switch": 1}
    with pytest.raises(ConfigError, match=r"model: .*no_such_switch"):
        train(config)


def test_a_cutoff_that_reaches_no_neighbor_is_refused(make_config):
    config = make_config()
    config.model.cutoff = 0.3
    with pytest.raises(ConfigError, match=r"model.cutoff: no atom of the training frames has a neighbor within 0.3 Å"):
        train(config)


def test_a_batch_that_takes_frames_more_than_once_is_told(make_config, capsys):
    train(make_config("usual", batch_size=24, steps=1))
    assert "train.batch_size" not in capsys.readouterr().err
    train(make_config("large", batch_size=25, steps=1))
    assert "note: train.batch_size is 25: each step takes the 24 training frames again" in capsys.readouterr().err


def test_no_validation_frames_leave_empty_cells(make_config):
    result = train(make_config(steps=6, data={"split": {"sizes": [30, 0, 0]}}))
    assert read_rows(result.run_dir)[0]["val_force_mae_mev_per_ang"] == ""
    assert result.summary["best_validation"] == {}


def test_adamw_and_float32_train(make_config):
    result = train(make_config(optimizer="adamw", weight_decay=0.01, dtype="float32", warmup_steps=3))
    assert math.isfinite(result.summary["last_validation"]["force_mae_mev_per_ang"])
    assert next(load_model(result.run_dir / "model").parameters()).dtype == torch.float32
