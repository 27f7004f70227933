"""Frames that lack a label: errors, or left out on request, never without a word. A lone atom lacks nothing."""

from __future__ import annotations

import json
import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import DataError, FrameCache, read_frames
from sdas.data.reading_notes import ReadingNotes


def labelled(index, forces=True, energy=True):
    atoms = molecule("H2O")
    if energy:
        atoms.info["REF_energy"] = float(index)
    if forces:
        atoms.set_array("REF_forces", np.full((3, 3), 0.1 * index))
    return atoms


def lone(symbol, energy=-13.6, **where):
    atoms = Atoms(symbol, **where)
    if energy is not None:
        atoms.info["REF_energy"] = energy
    return atoms


def write(path, frames):
    ase.io.write(path, frames, format="extxyz")
    return path


def convert(*arguments):
    return CliRunner().invoke(app, ["data", "convert", *(str(argument) for argument in arguments)])


@pytest.fixture
def holes(tmp_path):
    """Ten frames; 2 and 3 lack forces, 5 its energy, 7 both."""
    lacking = {2: (False, True), 3: (False, True), 5: (True, False), 7: (False, False)}
    return write(tmp_path / "holes.xyz", [labelled(i, *lacking.get(i, (True, True))) for i in range(10)])


def test_the_forces_on_a_lone_atom_in_open_space_are_zero(tmp_path):
    path = write(tmp_path / "a.xyz", [lone("H"), labelled(1), lone("O", -2000.0)])
    frames = list(read_frames(path))
    assert [frame.energy for frame in frames] == [-13.6, 1.0, -2000.0]
    for frame in (frames[0], frames[2]):
        np.testing.assert_array_equal(frame.forces, np.zeros((1, 3)))


def test_a_lone_atom_without_energy_or_with_images_is_not_completed(tmp_path):
    with pytest.raises(DataError, match="frame 0: no energy"):
        next(read_frames(write(tmp_path / "a.xyz", [lone("H", None)])))
    with pytest.raises(DataError, match="frame 0: no forces"):
        next(read_frames(write(tmp_path / "b.xyz", [lone("H", cell=[3] * 3, pbc=True)]), check_units=False))


def test_forces_that_a_lone_atom_has_are_kept(tmp_path):
    atom = lone("H")
    atom.set_array("REF_forces", np.array([[0.0, 0.0, 0.25]]))
    assert next(read_frames(write(tmp_path / "a.xyz", [atom]))).forces[0, 2] == 0.25


def test_an_incomplete_frame_is_an_error_that_says_how_to_go_on(holes):
    with pytest.raises(DataError, match=r"frame 2: no forces, .*--forces-key NAME.*--skip incomplete.*data\.skip"):
        list(read_frames(holes))


def test_incomplete_frames_are_left_out_counted_and_listed(holes):
    notes = ReadingNotes()
    frames = list(read_frames(holes, skip="incomplete", notes=notes))
    assert [frame.energy for frame in frames] == [0.0, 1.0, 4.0, 6.0, 8.0, 9.0]
    assert notes.document()["skipped"] == {
        "no forces": {"frames": 2, "first": [f"{holes}: frame 2", f"{holes}: frame 3"]},
        "no energy": {"frames": 1, "first": [f"{holes}: frame 5"]},
        "no energy and no forces": {"frames": 1, "first": [f"{holes}: frame 7"]},
    }
    kept = [frame.energy for frame in read_frames(holes, skip="incomplete", require=("energy",), notes=ReadingNotes())]
    assert kept == [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0]


def test_nothing_is_left_out_without_a_word(holes):
    with pytest.warns(UserWarning, match=r"skipped: 2 \(no forces\): .*frame 2, .*frame 3"):
        assert len(list(read_frames(holes, skip="incomplete"))) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read_frames(holes, require=(), skip="incomplete"))) == 10


def test_the_list_of_what_was_left_out_is_bounded(tmp_path):
    path = write(tmp_path / "a.xyz", [labelled(i, forces=i == 0) for i in range(30)])
    notes = ReadingNotes()
    assert len(list(read_frames(path, skip="incomplete", notes=notes))) == 1
    entry = notes.document()["skipped"]["no forces"]
    assert entry["frames"] == 29
    assert entry["first"] == [f"{path}: frame {i}" for i in range(1, 6)]


def test_a_file_without_any_complete_frame_says_what_it_lacks(tmp_path):
    path = write(tmp_path / "a.xyz", [labelled(i, forces=False) for i in range(3)])
    with pytest.raises(DataError, match=r"holds no frames; skipped: 3 \(no forces\): .*frame 0"):
        list(read_frames(path, skip="incomplete"))


def test_convert_and_info_say_what_was_left_out_and_the_cache_keeps_it(holes, tmp_path):
    result = convert(holes, "--to", tmp_path / "c", "--skip", "incomplete")
    assert result.exit_code == 0, result.output
    told = f"skipped: 2 (no forces): {holes}: frame 2, {holes}: frame 3"
    assert told in result.output
    assert len(FrameCache.open(tmp_path / "c")) == 6
    manifest = json.loads((tmp_path / "c" / "meta.json").read_text())
    assert manifest["reading"]["options"] == {"skip": "incomplete"}
    assert manifest["reading"]["skipped"]["no energy"]["frames"] == 1
    assert told in CliRunner().invoke(app, ["data", "info", str(tmp_path / "c")]).output


def test_training_says_what_was_left_out(holes, tmp_path):
    settings = {
        "data.path": holes,
        "data.skip": "incomplete",
        "data.split.sizes": "[4, 1, 1]",
        "run_dir": tmp_path / "run",
        "model.channels": 4,
        "model.heads": 4,
        "model.lmax": 1,
        "model.layers": 1,
        "train.steps": 1,
        "train.threads": 1,
    }
    (tmp_path / "a.yaml").write_text("{}")
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, ["train", str(tmp_path / "a.yaml"), *overrides])
    assert result.exit_code == 0, result.output
    assert f"skipped: 1 (no energy): {holes}: frame 5" in result.output
    assert json.loads((tmp_path / "run" / "frames" / "meta.json").read_text())["reading"]["skipped"]["no forces"]
