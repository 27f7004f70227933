"""A run that is killed and resumed ends with the same bits as one that was left alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import render_config
from sdas.errors import CheckpointError
from sdas.run.checkpoint import load_training_state
from sdas.run.lock import FolderInUseError
from sdas.run.model import load_run_model
from sdas.train import session, train
from sdas.train.rows import read_rows


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def start(config, tmp_path) -> subprocess.Popen:
    path = tmp_path / f"{Path(config.run_dir).name}.yaml"
    path.write_text(render_config(config))
    return subprocess.Popen(
        [sys.executable, "-m", "sdas.cli", "train", str(path)], env=environment(), stderr=subprocess.PIPE, text=True
    )


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while not list(folder.glob(f"step-{step:09d}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the run does not come to its checkpoint"
        time.sleep(0.005)


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model" / "model.safetensors")


def test_kill_and_resume_gives_the_same_bits(make_config, tmp_path, mixed_cache_path):
    """With batches by a number of atoms, which are found anew from the first one on."""
    settings = {"batch_size": None, "batch_atoms": 11, "steps": 30, "deterministic": True, "dtype": "float32"}
    settings |= {"checkpoint_every": 3, "validate_every": 5}
    settings |= {"data": {"path": str(mixed_cache_path)}, "energy_weight_late": 40.0, "late_from": 0.6}
    left_alone = make_config("alone", **settings)
    whole = start(left_alone, tmp_path)
    _, stderr = whole.communicate(timeout=240)
    assert whole.returncode == 0, stderr
    alone = train(left_alone, resume=True)  # complete already: only reads what is there
    config = make_config("killed", **settings)
    process = start(config, tmp_path)
    wait_for_step(process, Path(config.run_dir) / "checkpoints", 9)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    assert not (Path(config.run_dir) / "model").exists()
    assert 9 <= load_training_state(Path(config.run_dir) / "checkpoints").step < 30
    resumed = train(config, resume=True)

    expected, found = final_tensors(alone.run_dir), final_tensors(resumed.run_dir)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    a = load_training_state(alone.run_dir / "checkpoints")
    b = load_training_state(resumed.run_dir / "checkpoints")
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert alone.summary["train_flops"] == resumed.summary["train_flops"]
    timed = ("wall_s", "atoms_per_s")
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_rows(run.run_dir)] for run in (alone, resumed)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6


def test_a_run_that_is_being_trained_is_not_resumed_by_a_second_process(make_config, tmp_path):
    config = make_config(steps=100_000, checkpoint_every=10, validate_every=10)
    process = start(config, tmp_path)
    folder = Path(config.run_dir)
    wait_for_step(process, folder / "checkpoints", 10)
    config.train.steps = 50
    with pytest.raises(FolderInUseError, match=f"in use by process {process.pid}"):
        train(config, resume=True)
    process.kill()
    process.wait()
    process.stderr.close()
    config.train.steps = load_training_state(folder / "checkpoints").step + 10
    train(config, resume=True)
    steps = [int(row["step"]) for row in read_rows(folder)]
    assert steps == list(range(10, config.train.steps + 1, 10))


def test_the_bits_depend_on_what_is_restored(make_config, tmp_path, monkeypatch):
    """The comparison above can fail: a resume that forgets the optimizer's moments ends elsewhere."""
    alone = train(make_config("alone", deterministic=True))
    config = make_config("forgetful", steps=6, deterministic=True)
    train(config)
    state = load_training_state(Path(config.run_dir) / "checkpoints")
    for name in state.tensors:
        if name.startswith("optimizer.") and name.endswith("exp_avg"):
            state.tensors[name].zero_()
    monkeypatch.setattr("sdas.train.session.load_training_state", lambda folder: state)
    config.train.steps = 12
    resumed = train(config, resume=True)
    expected, found = final_tensors(alone.run_dir), final_tensors(resumed.run_dir)
    assert not all(torch.equal(expected[name], found[name]) for name in expected)


def test_random_numbers_go_on_where_they_were(make_config):
    import random

    import numpy as np

    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), [random.random(), random.gauss(0, 1)]  # noqa: NPY002

    config = make_config(steps=3)
    train(config)
    first = draw()
    draw()
    train(config, resume=True)
    assert draw() == first


def test_a_damaged_last_checkpoint_is_told_and_the_one_before_taken(make_config):
    settings = {"deterministic": True, "checkpoint_every": 4}
    alone = train(make_config("alone", **settings))
    config = make_config(**settings)
    result = train(config)
    newest = result.run_dir / "checkpoints" / "step-000000012" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match="CHECKPOINT DAMAGED"):
        resumed = train(config, resume=True)
    expected, found = final_tensors(alone.run_dir), final_tensors(resumed.run_dir)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_another_model_is_refused(make_config):
    config, other = make_config(steps=2), make_config("other", steps=2)
    train(config)
    other.model.channels = 8
    train(other)
    shutil.rmtree(Path(config.run_dir) / "checkpoints")
    shutil.copytree(Path(other.run_dir) / "checkpoints", Path(config.run_dir) / "checkpoints")
    with pytest.raises(CheckpointError, match="does not fit this run"):
        train(config, resume=True)


def test_a_checkpoint_whose_loss_had_no_unit_is_refused(make_config, monkeypatch):
    config = make_config(steps=2)
    train(config)

    def earlier(folder):
        saved = load_training_state(folder)
        saved.document["changes"]["force_rms"] = saved.document["changes"].pop("unit")
        return saved

    monkeypatch.setattr(session, "load_training_state", earlier)
    with pytest.raises(
        CheckpointError, match="the checkpoint is of an earlier version, whose loss weighed errors of the"
    ):
        train(config, resume=True)


def test_checkpoints_of_slow_steps_come_by_the_clock_and_change_no_bit(make_config):
    """A minute of wall time that is over at once stands for steps that take minutes."""
    ends = {}
    for name, minutes in {"by steps": 5.0, "by the clock": 1e-9}.items():
        config = make_config(name, steps=7, checkpoint_every=1000, checkpoint_minutes=minutes, deterministic=True)
        folder = train(config).run_dir / "checkpoints"
        ends[name] = load_training_state(folder).tensors
        kept = [0, 7] if name == "by steps" else [6, 7]
        assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:09d}" for step in kept]
    alone, often = ends.values()
    assert all(torch.equal(alone[name], often[name]) for name in alone)


def test_sigterm_saves_and_the_command_says_how_to_go_on(make_config, tmp_path):
    config = make_config(steps=100_000, checkpoint_every=10, validate_every=100_000)
    process = start(config, tmp_path)
    wait_for_step(process, Path(config.run_dir) / "checkpoints", 10)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"sdas train --resume {config.run_dir}" in stderr
    step = load_training_state(Path(config.run_dir) / "checkpoints").step
    runner = CliRunner()
    refused = runner.invoke(app, ["evaluate", config.run_dir])
    assert refused.exit_code == 1
    end = re.search(r"end it where it is with 'sdas (.*)'", refused.stderr)
    assert end is not None, refused.stderr
    ended = runner.invoke(app, shlex.split(end[1]))
    assert ended.exit_code == 0, ended.output
    assert f"{step} steps" in ended.stdout
    assert load_run_model(config.run_dir).species.tolist() == [1, 8]
