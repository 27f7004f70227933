"""A file's name is its name: no reader takes a part of it for an index, a server or a pattern."""

import os
from pathlib import Path

import pytest

from sdas.data import FrameCache, read_frames, write_cache
from sdas.md.structure import read_structure

ODD_NAMES = [
    "a@b.xyz",
    "a@0.xyz",
    "@.xyz",
    "postgres.xyz",
    "mysql.xyz",
    "-",
    "b #2.xyz",
    "[x]*.xyz",
    "a\nb.xyz",
    "ü狮.xyz",
]


@pytest.mark.parametrize("name", [*ODD_NAMES, os.fsdecode(b"\xff.xyz")])
def test_a_name_is_a_name_and_nothing_else(tmp_path, monkeypatch, water, name):
    """ASE takes what follows an @ for an index, a dash for standard input, and the beginning for a server."""
    monkeypatch.chdir(tmp_path)
    text = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy={}\nO 0 0 0 0 0 {}\n"
    Path(name).write_text(text.format(1, 0) + text.format(2, 0.1))
    form = None if name.endswith(".xyz") else "ase:extxyz"
    frames = list(read_frames(name, form))
    assert [(frame.energy, frame.source) for frame in frames] == [(1, f"{name}: frame 0"), (2, f"{name}: frame 1")]
    cache = write_cache(frames, f"{name}.cache")
    assert [frame.source for frame in FrameCache.open(f"{name}.cache")] == [frame.source for frame in frames]
    assert cache.source(1) == frames[1].source
    if name.endswith(".xyz"):
        assert read_structure(Path(name), 1).get_potential_energy() == 2
