"""A run is resumed in the folder that is named, whatever its name, and no other run is touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdas import cli
from sdas.train import train


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


NAMES = [
    "b #2",
    "b: c",
    "-b",
    "b\nc",
    "'b\"",
    "[b]*",
    "{b}",
    "~",
    "null",
    "7",
    "b@2",
    "$HOME;`b`",
    "ü狮",
    os.fsdecode(b"\xff"),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_run_of_that_name_goes_on(make_config, tmp_path, monkeypatch, name):
    train(make_config("b", steps=1))
    monkeypatch.chdir(tmp_path)
    shutil.copytree("b", name)
    before = content(Path("b"))
    done = CliRunner().invoke(cli.app, ["--debug", "train", "--resume", name, "--set", "train.steps=2"])
    assert done.exit_code == 0, done.exception
    assert json.loads(Path(name, "summary.json").read_text())["steps"] == 2
    assert content(Path("b")) == before
    assert sorted(os.listdir()) == sorted({"b", name})


def test_another_run_dir_beside_resume_is_refused(make_config):
    config = make_config(steps=1)
    train(config)
    done = CliRunner().invoke(cli.app, ["train", "--resume", config.run_dir, "--set", "run_dir=elsewhere"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: --set run_dir: the run that is resumed lies in ")
