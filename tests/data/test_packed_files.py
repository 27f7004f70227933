"""Packed files hold what the plain ones do, are read once and forwards, and an unfinished last frame is no mystery."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.data import DataError, read_frames
from sdas.data.reading_notes import ReadingNotes

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FRAMES = 30


def structures(count: int = FRAMES):
    rng = np.random.default_rng(0)
    for k in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += 0.05 * rng.normal(size=(4, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=rng.normal(size=(4, 3)))
        yield atoms


def write(path: Path, format: str) -> Path:
    ase.io.write(path, list(structures()), format=format)
    return path


def packed(path: Path, suffix: str) -> Path:
    target = path.with_name(path.name + suffix)
    target.write_bytes(PACK[suffix](path.read_bytes()))
    return target


@pytest.fixture
def work(monkeypatch):
    """Bytes unpacked and steps back so far in all packed streams."""
    done = {"bytes": 0, "back": 0}
    for kind in (gzip.GzipFile, bz2.BZ2File, lzma.LZMAFile):
        original_readinto, original_seek = kind.readinto, kind.seek

        def readinto(self, buffer, original=original_readinto):
            count = original(self, buffer)
            done["bytes"] += count
            return count

        def seek(self, offset, whence=io.SEEK_SET, original=original_seek):
            done["back"] += 1
            return original(self, offset, whence)

        monkeypatch.setattr(kind, "readinto", readinto)
        monkeypatch.setattr(kind, "seek", seek)
    return done


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(("name", "format"), [("a.xyz", "extxyz"), ("XDATCAR", "vasp-xdatcar"), ("a.json", "json")])
def test_packed_files_hold_the_same_and_are_unpacked_once(tmp_path, same_frame, work, suffix, name, format):
    plain = write(tmp_path / name, format)
    path = packed(plain, suffix)
    asked = {"format": f"ase:{format}", "require": ()}
    expected, found = list(read_frames(plain, **asked)), list(read_frames(path, **asked))
    assert len(found) == len(expected) == FRAMES
    for a, b in zip(expected, found, strict=True):
        same_frame(a, b)
    assert work["back"] == 0
    assert plain.stat().st_size <= work["bytes"] <= 2 * plain.stat().st_size


@pytest.mark.parametrize("suffix", PACK)
def test_nothing_is_left_of_a_file_that_was_unpacked(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    frames = read_frames(packed(write(tmp_path / "XDATCAR", "vasp-xdatcar"), suffix), "ase:vasp-xdatcar", require=())
    next(frames)
    frames.close()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_cut_short_is_refused_after_its_frames(tmp_path, suffix):
    path = packed(write(tmp_path / "a.xyz", "extxyz"), suffix)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read_frames(path))


def test_blank_lines_between_frames_end_nothing(tmp_path, same_frame):
    text = write(tmp_path / "a.xyz", "extxyz").read_text()
    lines = text.splitlines(keepends=True)
    spaced = "".join("".join(lines[k : k + 6]) + "\n  \n" for k in range(0, len(lines), 6))
    (tmp_path / "b.xyz").write_text(spaced)
    for a, b in zip(read_frames(tmp_path / "a.xyz"), read_frames(tmp_path / "b.xyz"), strict=True):
        same_frame(a, b)


def test_cells_in_lines_of_their_own_belong_to_their_frame(tmp_path):
    frame = "1\n\nCu 0 0 0\nVEC1 4 0 0\nVEC2 0 4 0\nVEC3 0 0 4\n"
    (tmp_path / "a.xyz").write_text(2 * frame)
    frames = list(read_frames(tmp_path / "a.xyz", require=(), check_units=False))
    assert [frame.cell.tolist() for frame in frames] == [[[4, 0, 0], [0, 4, 0], [0, 0, 4]]] * 2


def test_an_unfinished_last_frame_is_an_error_or_left_out_wherever_it_ends(tmp_path):
    """A run that is killed leaves any part of its last frame."""
    atoms = molecule("H2O")
    atoms.info["energy"] = -1.0
    atoms.set_array("forces", np.full((3, 3), 0.125))
    ase.io.write(tmp_path / "whole.xyz", [atoms] * 3, format="extxyz")
    whole = (tmp_path / "whole.xyz").read_bytes()
    start = 2 * len(whole) // 3
    path = tmp_path / "cut.xyz"
    for kept in (*range(start + 1, start + 140, 7), len(whole) - 90, len(whole) - 40):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"frame 2.*--skip incomplete"):
            list(read_frames(path))
        notes = ReadingNotes()
        assert len(list(read_frames(path, skip="incomplete", notes=notes))) == 2
        assert notes.document()["skipped"] == {"unfinished last frame": {"frames": 1, "first": [f"{path}: frame 2"]}}


def test_damage_within_a_file_is_not_taken_for_its_unfinished_end(tmp_path):
    lines = write(tmp_path / "a.xyz", "extxyz").read_text().splitlines(keepends=True)
    (tmp_path / "b.xyz").write_text("".join(lines[:9] + lines[10:]))
    with pytest.raises(DataError, match=r"frame 1"):
        list(read_frames(tmp_path / "b.xyz", skip="incomplete"))
    (tmp_path / "c.xyz").write_text("".join([*lines[:9], "Cu x y z 0 0 0\n", *lines[10:]]))
    with pytest.raises(DataError, match=r"frame 1: ASE cannot read it"):
        list(read_frames(tmp_path / "c.xyz", skip="incomplete"))


def test_a_long_file_is_not_held_in_memory(tmp_path):
    """Of a stream without end, the first frames come."""
    frame = write(tmp_path / "a.xyz", "extxyz").read_text()
    with gzip.open(tmp_path / "long.xyz.gz", "wt") as file:
        for _ in range(200):
            file.write(frame)
    shutil.copy(tmp_path / "long.xyz.gz", tmp_path / "cut.xyz.gz")
    with open(tmp_path / "cut.xyz.gz", "r+b") as cut:
        cut.truncate((tmp_path / "long.xyz.gz").stat().st_size // 2)
    frames = read_frames(tmp_path / "cut.xyz.gz", check_units=False)
    assert [next(frames).energy for _ in range(3)] == [0.0, 1.0, 2.0]
