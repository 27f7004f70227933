"""`sdas label`: what it writes, that it goes on, and its exit status."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

import ase
import numpy as np
import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import read_frames
from sdas.data.writing import write_frames
from sdas.documents import read_document

ORACLE = ["--oracle", "ase:spring_calculator:Spring"]


@pytest.fixture
def command(tmp_path, monkeypatch, springs, spring, log):
    monkeypatch.chdir(tmp_path)
    write_frames("in.xyz", [(frame, {}) for frame in springs(1, 5, 6, 6)])

    def run(*arguments):
        words = ["label", "in.xyz", "--skip-unit-checks", "--out", "out.xyz", *arguments]
        return CliRunner().invoke(app, words)

    return run


def test_labels_are_written_failures_are_listed_and_nothing_is_computed_twice(command, tmp_path, log, springs):
    arguments = [*ORACLE, "--set", f"arguments.log={json.dumps(str(log))}"]
    result = command(*arguments)
    assert result.exit_code == 3, result.output
    assert "3 of 4 frames labelled, 4 computed now" in result.output
    labelled = list(read_frames("out.xyz", check_units=False))
    assert [frame.energy for frame in labelled] == [1.0, 9.0, 16.0]
    np.testing.assert_allclose(labelled[2].forces, [[-8.0, 0, 0]])
    (failed,) = read_document(tmp_path / "out.failed.json")["failed"]
    assert (failed["index"], failed["kind"]) == (1, "raised")
    result = command(*arguments)
    assert "3 of 4 frames labelled, 1 computed now" in result.output, "what was raised is tried again"
    write_frames("in.xyz", [(frame, {}) for frame in springs(1, 6)[:1]])
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 of 1 frames labelled, 0 computed now" in result.output
    assert not (tmp_path / "out.failed.json").exists()


def test_where_all_fail_the_reasons_are_listed(command, tmp_path, log, springs):
    write_frames("in.xyz", [(springs(1, 5)[1], {})])
    result = command(*ORACLE, "--set", f"arguments.log={json.dumps(str(log))}")
    assert result.exit_code == 1
    assert "no boron here; all are listed in out.failed.json" in result.stderr
    assert len(read_document(tmp_path / "out.failed.json")["failed"]) == 1


def test_labels_by_other_versions_are_counted(command, log, springs, monkeypatch):
    write_frames("in.xyz", [(frame, {}) for frame in springs(1, 6)])
    arguments = [*ORACLE, "--set", f"arguments.log={json.dumps(str(log))}"]
    assert "note" not in command(*arguments).stderr
    monkeypatch.setattr("sdas.label.ase.ASEOracle.versions", {"ase": "9.9"})
    result = command(*arguments)
    assert result.exit_code == 0
    assert f"note: 2 labels are by ase {ase.__version__}, now it is ase 9.9" in result.stderr


def test_frames_keep_the_state_they_were_computed_in(command, molecule):
    pytest.importorskip("tblite")
    hydroxide = replace(molecule([8, 1], [[0, 0, 0], [0, 0, 0.97]]), charge=-1.0, config_type="ion", weight=2.0)
    write_frames("in.xyz", [(hydroxide, {})])
    assert command("--oracle", "tblite").exit_code == 0
    (frame,) = read_frames("out.xyz")
    assert (frame.charge, frame.spin, frame.config_type, frame.weight) == (-1.0, 1.0, "ion", 2.0)
    result = command("--oracle", "tblite", "--set", "charge=0")
    assert result.exit_code == 1
    assert "in.xyz: frame 0: states charge -1, the oracle is set to charge 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--oracle", "tblite", "--set", "charge"], "--set charge: must read NAME=VALUE"),
        (["--oracle", "tblite", "--workers", "0"], "resources: workers: input should be greater than or equal to 1"),
        (["--oracle", "tblite", "--engine", "slurm"], "resources: engine: input should be 'local' or 'ray'"),
        (["--oracle", "tblite"], "1 electrons at charge 0 have an even multiplicity"),
        (["--oracle", "nonsense"], "oracle 'nonsense': must read"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, arguments, words):
    result = command(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("in.xyz", "in.xyz is read, and would be replaced"),
        ("mine.xyz", "mine.xyz is no earlier result, and would be replaced"),
        ("folder.xyz", "folder.xyz is a folder"),
        ("out.traj", "out.traj: extended XYZ is written, so the name must end in .extxyz or .xyz"),
    ],
)
def test_no_file_of_others_is_replaced_and_nothing_computed_in_vain(command, tmp_path, log, springs, out, words):
    write_frames("mine.xyz", [(springs(1)[0], {"colour": "blue"})])
    (tmp_path / "folder.xyz").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = command(*ORACLE, "--set", f"arguments.log={json.dumps(str(log))}", "--out", out)
    assert result.exit_code == 1
    assert words in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_full_disk_costs_the_file_and_no_label(command, tmp_path, log, monkeypatch):
    def full(path, frames):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    arguments = [*ORACLE, "--set", f"arguments.log={json.dumps(str(log))}", "--store", "kept"]
    with monkeypatch.context() as patched:
        patched.setattr("sdas.label.cli.write_frames", full)
        result = command(*arguments)
    assert (result.exit_code, result.stderr) == (1, "error: out.xyz: No space left on device\n")
    before = log.read_text()
    command(*arguments)
    assert [frame.energy for frame in read_frames("out.xyz", check_units=False)] == [1.0, 9.0, 16.0]
    assert log.read_text() == before + "B 2.0\n", "only what was raised is computed again"
