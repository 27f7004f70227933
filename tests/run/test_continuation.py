"""A resumed run is the run that was started: what would make it another is refused by key, what may change is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sdas import cli
from sdas.config import Config, parse_config, render_config
from sdas.config.section import Section
from sdas.data import FrameCache, Split, write_cache
from sdas.data.frame import Frame
from sdas.documents import read_document, write_document
from sdas.errors import TrainingError
from sdas.run.checkpoint import load_training_state
from sdas.run.continuation import FIXED, FREE, check_frames, check_settings, record_start


def water(index: int) -> Frame:
    rng = np.random.default_rng(index)
    positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]) + 0.05 * rng.normal(size=(3, 3))
    free = np.zeros(3, dtype=bool)
    return Frame(np.array([8, 1, 1]), positions, None, free, float(index), rng.normal(size=(3, 3)), None, f"{index}")


def make_split(cache: FrameCache, *parts: list[int]) -> Split:
    return Split(*(np.array(part, dtype=np.int64) for part in parts), len(cache), cache.fingerprint, "made")


@pytest.fixture
def cache(tmp_path):
    return write_cache([water(i) for i in range(6)], tmp_path / "frames")


@pytest.fixture
def config(tmp_path, cache) -> Config:
    content = {
        "run_dir": str(tmp_path / "run"),
        "data": {"path": str(cache.path), "split": {"sizes": [3, 1, 2]}},
        "model": {"channels": 2, "heads": 1, "lmax": 1, "layers": 1, "cutoff": 3.0, "n_radial": 2},
        "train": {"steps": 1, "batch_size": 2, "device": "cpu", "threads": 1},
    }
    return parse_config(content, "test")


@pytest.fixture
def folder(tmp_path, config, cache):
    """Of a run that was started."""
    path = Path(config.run_dir)
    path.mkdir()
    record_start(config, cache, make_split(cache, [0, 1, 2], [3], [4, 5]), path)
    return path


CHANGES = {
    "model.cutoff": 3.5,
    "model.channels": 4,
    "model.options": {"sink": False},
    "model.species": [1, 8],
    "model.layer": "paper",
    "train.dtype": "float64",
    "train.optimizer": "adam",
    "train.seed": 1,
    "train.batch_size": 3,
    "data.units": "kcal/mol",
    "data.split.seed": 1,
    "data.split.sizes": [2, 2, 2],
    "data.validation": "/other.xyz",
    "data.test": ["/one.xyz", "/two.xyz"],
}
ALLOWED = {
    "train.steps": 2,
    "train.validate_every": 1,
    "train.checkpoint_every": 3,
    "train.threads": 2,
    "train.device": "cuda",
    "train.learning_rate": 1e-4,
    "train.clip_norm": 1.0,
    "data.graph_cache_gib": 1.0,
    "data.path": "/elsewhere",
}


def changed(config: Config, key: str, value: object) -> Config:
    content = config.model_dump()
    *sections, name = key.split(".")
    section = content
    for part in sections:
        section = section[part]
    section[name] = value
    return parse_config(content, "test")


@pytest.mark.parametrize("key", CHANGES)
def test_what_makes_the_run_is_refused_by_key_with_both_values(config, folder, key):
    before, after = config, changed(config, key, CHANGES[key])
    with pytest.raises(TrainingError) as caught:
        check_settings(after, folder, from_cache=True)
    assert f"{key} (" in str(caught.value)
    assert json.dumps(CHANGES[key]) in str(caught.value)
    assert "it can change data.path" in str(caught.value)
    assert check_settings(before, folder, from_cache=True) == []


@pytest.mark.parametrize("key", ALLOWED)
def test_what_may_change_is_told(config, folder, key):
    told = check_settings(changed(config, key, ALLOWED[key]), folder, from_cache=True)
    assert len(told) == 1
    assert told[0].startswith(f"{key} (")
    assert told[0].endswith(f" → {json.dumps(ALLOWED[key])})")


def test_raw_files_that_were_converted_are_not_exchanged(config, folder):
    with pytest.raises(TrainingError, match=r"cannot change data.path \(.*frames. → ./other.xyz.\)"):
        check_settings(changed(config, "data.path", "/other.xyz"), folder, from_cache=False)


def test_a_folder_may_move(config, folder):
    assert check_settings(changed(config, "run_dir", "elsewhere"), folder, from_cache=True) == []


def test_the_names_of_the_rule_are_keys(config):
    for name in (*FIXED, *FREE):
        value = config
        for part in name.split("."):
            assert part in type(value).model_fields, name
            value = getattr(value, part)
        assert isinstance(value, Section) or name.count(".") == 1


def test_other_frames_and_another_split_are_refused(config, cache, folder, tmp_path):
    split = make_split(cache, [0, 1, 2], [3], [4, 5])
    check_frames(cache, split, folder)
    with pytest.raises(TrainingError, match="cannot change its split"):
        check_frames(cache, make_split(cache, [0, 1, 2, 4], [3], [5]), folder)
    other = write_cache([water(i) for i in range(1, 7)], tmp_path / "other")
    with pytest.raises(TrainingError, match="not the frames with which the run in"):
        check_frames(other, split, folder)


def test_a_broken_record_is_refused(config, cache, folder):
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"cutoff": 3.0', '"cutoff": 3.5'))
    with pytest.raises(TrainingError, match=r"run.json: damaged or edited"):
        check_settings(config, folder, from_cache=True)
    record.unlink()
    with pytest.raises(TrainingError, match=r"run.json does not exist: what the run was started with is not known"):
        check_settings(config, folder, from_cache=True)


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["train", *(str(argument) for argument in arguments)])


def test_the_command_refuses_and_leaves_the_run_as_it_was(config, tmp_path):
    path, folder = tmp_path / "c.yaml", Path(config.run_dir)
    path.write_text(render_config(config))
    assert run(path).exit_code == 0
    written, edited = (folder / "config.yaml").read_text(), yaml.safe_load((folder / "config.yaml").read_text())
    edited["model"]["cutoff"], edited["train"]["seed"] = 4.0, 3
    (folder / "config.yaml").write_text(yaml.safe_dump(edited))
    for command in (("--resume", folder), ("--resume", folder, "--set", "train.steps=2")):
        done = run(*command)
        assert done.exit_code == 1
        assert "cannot change model.cutoff (3.0 → 4.0), train.seed (0 → 3): set back" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert yaml.safe_load((folder / "config.yaml").read_text()) == edited
    (folder / "config.yaml").write_text(written)
    done = run("--resume", folder, "--set", "train.steps=2", "--set", "train.learning_rate=1e-3")
    assert done.exit_code == 0, done.stderr
    assert "changed from here on: train.learning_rate (0.01 → 0.001)\n" in done.stderr
    assert load_training_state(folder / "checkpoints").step == 2
    assert "changed" not in run("--resume", folder).stderr

    split = json.loads((folder / "split.json").read_text())
    split["train"].append(split["test"].pop())
    (folder / "split.json").write_text(json.dumps(split))
    done = run("--resume", folder)
    assert done.exit_code == 1
    assert "cannot change its split" in done.stderr


@pytest.mark.parametrize("written", [(), ("run.json",), ("run.json", "split.json")])
def test_a_run_killed_before_its_first_checkpoint_is_started_or_resumed(config, tmp_path, written):
    path, folder = tmp_path / "c.yaml", Path(config.run_dir)
    path.write_text(render_config(config))
    assert run(path).exit_code == 0
    for command in ((path,), ("--resume", folder)):
        for name in set(os.listdir(folder)) - {"config.yaml", *written}:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
        done = run(*command)
        assert done.exit_code == 0, done.stderr


def test_a_run_whose_settings_have_another_meaning_by_now_does_not_go_on(config, folder):
    stored = read_document(folder / "run.json")
    stored["settings"]["train"]["lambda_energy"] = 0.1
    write_document(folder / "run.json", stored)
    with pytest.raises(TrainingError, match=r"lambda_energy is gone: .*; the run was begun by an earlier version"):
        check_settings(config, folder, from_cache=True)
