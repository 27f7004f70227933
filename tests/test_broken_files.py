"""Every command ends in one line that names the file, whatever became of the files that it reads and writes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sdas import cli
from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache

pytestmark = pytest.mark.filterwarnings("ignore:CHECKPOINT DAMAGED")

COMMANDS = {
    "train": ("train", "c.yaml", "--set", "run_dir=new"),
    "resume": ("train", "--resume", "run", "--set", "train.steps=3"),
    "evaluate": ("evaluate", "run"),
    "md": ("md", "run", "--structure", "w.xyz", "--steps", "6", "--every", "1"),
    "report": ("report", "run"),
    "info": ("data", "info", "frames"),
    "convert": ("data", "convert", "frames", "--to", "copy"),
    "split": ("data", "split", "frames", "--sizes", "3,2,3"),
    "indices": ("data", "split", "frames", "--by", "indices", "--indices", "i.json"),
    "table": ("data", "split", "frames", "--by", "indices", "--indices", "i.csv"),
}
READ = {
    "run/config.yaml": ("resume", "evaluate"),
    "run/run.json": ("resume",),
    "run/split.json": ("resume", "evaluate"),
    "run/metrics.csv": ("resume", "report"),
    "run/summary.json": ("report",),
    "run/evaluation.json": ("report",),
    "run/predictions.npz": ("report",),
    "run/md/md.json": ("report",),
    "run/md/log.csv": ("report",),
    "run/md/state.npz": ("md",),
    "run/model/model.json": ("evaluate", "md"),
    "run/model/model.safetensors": ("evaluate", "md"),
    "frames/meta.json": ("train", "info", "split"),
    "frames/checksums.npy": ("train", "info", "split"),
    "frames/positions.npy": ("info", "convert"),
    "i.json": ("indices",),
    "i.csv": ("table",),
    "w.xyz": ("md",),
}
DAMAGES = {
    "garbage": b"\xff\xfe{garbage\n",
    "deep": b"[" * 20_000 + b"\n",
    "list": b"[1]\n[2",
    "folder": None,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, and a run that was trained, evaluated, put to dynamics and reported."""
    folder, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ideal = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        free = np.zeros(3, dtype=bool)
        write_cache(
            (
                Frame(np.array([8, 1, 1]), ideal + 0.05 * x, None, free, x.sum(), x, None, f"{i}")
                for i, x in enumerate(rng.normal(size=(8, 3, 3)))
            ),
            "frames",
        )
        content = {
            "run_dir": "run",
            "data": {"path": "frames", "split": {"sizes": [3, 2, 3]}},
            "model": {"channels": 2, "heads": 1, "lmax": 1, "layers": 1, "cutoff": 3.0, "n_radial": 2},
            "train": {"steps": 2, "batch_size": 2, "threads": 1, "validate_every": 1, "device": "cpu"},
        }
        Path("c.yaml").write_text(render_config(parse_config(content, "test")))
        Path("w.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
        Path("i.json").write_text(json.dumps({"train": [0, 1], "test": [2]}))
        Path("i.csv").write_text("index,part\n0,train\n")
        commands = [("train", "c.yaml"), COMMANDS["evaluate"], COMMANDS["md"], COMMANDS["report"]]
        for command in [*commands, *(COMMANDS[name] for name in ("indices", "table"))]:
            done = run(*command)
            assert done.exit_code == 0, done.stderr
    return folder


def run(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def ends_in_one_line(done) -> str:
    """The line; anything else that was printed is a progress bar."""
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 1, done.output
    lines = [line for line in done.stderr.splitlines() if line.strip() and "it/s" not in line and "%|" not in line]
    assert lines[-1].startswith("error: "), lines
    return lines[-1]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ)
def test_a_broken_file_ends_a_command_in_one_line_that_names_it(place, monkeypatch, file, damage):
    monkeypatch.chdir(place)
    path, kept = Path(file), Path("kept")
    path.rename(kept)
    try:
        if DAMAGES[damage] is None:
            path.mkdir()
        else:
            path.write_bytes(DAMAGES[damage])
        for name in READ[file]:
            line = ends_in_one_line(run(*COMMANDS[name]))
            assert path.name in line or str(path.parent) in line, (name, line)
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        kept.rename(path)


@pytest.mark.parametrize("name", ["train", "resume", "evaluate", "md", "report", "convert", "split"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_ends_a_command_in_one_line(place, monkeypatch, name, code):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.chdir(place)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert os.strerror(code) in ends_in_one_line(run(*COMMANDS[name]))
    assert not list(place.rglob(".*.partial-*"))


SETTINGS = (
    "train.seed=4294967296",
    "train.seed=-1",
    "train.batch_size=100000000000000000000",
    "train.threads=100000000000",
    "train.device=nonsense",
    "data.split.seed=100000000000000000000",
    "model.lmax=50",
    "data.path=b #2",
    "train.steps=2024-13-45",
)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_value_out_of_range_ends_training_in_one_line(place, monkeypatch, setting):
    monkeypatch.chdir(place)
    line = ends_in_one_line(run("train", "c.yaml", "--set", "run_dir=other", "--set", setting))
    key = setting.partition("=")[0]
    assert key in line or key.partition(".")[2] in line
