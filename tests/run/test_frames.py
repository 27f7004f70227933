"""Frames come from the files of their part, or are split off from those to train on; and nothing mixes them up."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule

from sdas.config import parse_config
from sdas.data import DataError, FrameCache, read_frames, write_cache
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.splits import PARTS
from sdas.run.frames import check_files, convert_raw_files, open_data, warn_of_repeated


def write(path: Path, count: int, seed: int) -> str:
    """Waters, each bent its own way; the energy tells the file and the frame."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        atoms.info["REF_energy"] = 100.0 * seed + k
        atoms.set_array("REF_forces", rng.normal(size=(3, 3)))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Files a, b, c, d of 10, 5, 4 and 3 frames, whose energies begin at 0, 100, 200, 300."""
    counts = {"a": 10, "b": 5, "c": 4, "d": 3}
    return {name: write(tmp_path / f"{name}.xyz", n, seed) for seed, (name, n) in enumerate(counts.items())}


def energies_of(tmp_path: Path, data: dict) -> dict[str, list[float]]:
    """Sorted energies of each part of a run on ``data``."""
    config, folder = parse_config({"data": data}, "test").data, tmp_path / "run"
    convert_raw_files(config, folder)
    cache, split = open_data(config, folder)
    return {part: sorted(cache[int(i)].energy for i in getattr(split, part)) for part in PARTS}


def of(name: str, count: int) -> list[float]:
    return [100.0 * "abcd".index(name) + k for k in range(count)]


def test_each_part_has_the_frames_of_its_files(files, tmp_path):
    data = {"train": [files["a"], files["b"]], "validation": files["c"], "test": [files["d"]]}
    found = energies_of(tmp_path, data)
    assert found == {"train": of("a", 10) + of("b", 5), "validation": of("c", 4), "test": of("d", 3)}


def test_validation_is_split_off_where_it_has_no_files(files, tmp_path):
    found = energies_of(tmp_path, {"train": files["a"], "test": files["d"]})
    assert len(found["validation"]) == 1  # a tenth
    assert sorted(found["train"] + found["validation"]) == of("a", 10)
    assert found["test"] == of("d", 3)


def test_counts_are_those_of_the_frames_to_train_on(files, tmp_path):
    found = energies_of(tmp_path, {"path": files["a"], "validation": files["b"], "split": {"sizes": [6, 99, 3]}})
    assert [len(found[part]) for part in PARTS] == [6, 5, 3]
    assert found["validation"] == of("b", 5)
    assert set(found["train"] + found["test"]) < set(of("a", 10))


def test_a_part_may_be_a_cache(files, tmp_path):
    write_cache(read_frames(files["a"]), tmp_path / "a.cache")
    found = energies_of(tmp_path, {"train": str(tmp_path / "a.cache"), "test": files["b"]})
    assert sorted(found["train"] + found["validation"]) == of("a", 10)
    assert found["test"] == of("b", 5)


def test_labels_of_other_names_in_other_files_are_pointed_out(files, tmp_path):
    """A cache was made of coupled-cluster energies, a file has those of a functional."""
    images = ase.io.read(files["a"], ":")
    for atoms in images:
        atoms.info["ccsd_energy"] = atoms.info["REF_energy"] - 1.0
    ase.io.write(tmp_path / "both.xyz", images)
    key, notes = {"energy_key": "ccsd_energy"}, ReadingNotes()
    write_cache(read_frames(tmp_path / "both.xyz", **key, notes=notes), tmp_path / "cc.cache", notes=notes)
    config = parse_config({"data": {"train": str(tmp_path / "cc.cache"), "test": files["b"]}}, "test").data
    convert_raw_files(config, tmp_path / "run")
    said = lines_about_reading(FrameCache.open(tmp_path / "run" / "frames").reading)
    assert "note: the energy is called ccsd_energy and REF_energy in different files; is it the same?" in said
    assert not any("the forces" in line for line in said)


def test_a_cache_alone_is_used_where_it_lies(files, tmp_path):
    write_cache(read_frames(files["a"]), tmp_path / "a.cache")
    energies_of(tmp_path, {"train": str(tmp_path / "a.cache")})
    assert not (tmp_path / "run").exists()


def test_frames_that_test_and_train_are_counted(files, tmp_path, recwarn):
    """The file of the test frames has two frames of the training file, under other labels."""
    twins = ase.io.read(files["a"], ":")[3:5] + ase.io.read(files["d"], ":")
    for k, atoms in enumerate(twins):
        atoms.info["REF_energy"] = 7.0 + k
    ase.io.write(tmp_path / "test.xyz", twins)
    config = parse_config({"data": {"train": files["a"], "test": str(tmp_path / "test.xyz")}}, "test").data
    convert_raw_files(config, tmp_path / "run")
    cache, split = open_data(config, tmp_path / "run")
    split = type(split)(np.arange(10), np.array([], int), split.test, len(cache), cache.fingerprint, "")
    warn_of_repeated(cache, split)
    (warning,) = recwarn
    assert str(warning.message).startswith("2 of 5 test frames are training frames too")
    assert "test.xyz: frame 0" in str(warning.message)


def test_files_that_cannot_be_read_are_named_before_a_run_begins(files, tmp_path):
    (tmp_path / "run.conf").write_text("train: {steps: 1}\n")
    for name, message in {"nowhere.xyz": "nowhere.xyz does not exist", "run.conf": r"ends in \.yaml"}.items():
        config = parse_config({"data": {"path": files["a"], "test": str(tmp_path / name)}}, "test")
        with pytest.raises(DataError, match=message):
            check_files(config.data)


def test_frames_with_any_label_are_taken_and_those_with_none_refused(files, tmp_path):
    """Energies alone, forces alone, nothing; with skip only frames that have both are left."""
    images = ase.io.read(files["a"], ":")
    del images[1].arrays["REF_forces"], images[2].info["REF_energy"]
    ase.io.write(tmp_path / "mixed.xyz", images)
    config, folder = parse_config({"data": {"path": str(tmp_path / "mixed.xyz")}}, "test").data, tmp_path / "run"
    convert_raw_files(config, folder)
    cache = FrameCache.open(folder / "frames")
    assert [cache.labelled("energy").sum(), cache.labelled("forces").sum(), len(cache)] == [9, 9, 10]
    strict = config.model_copy(update={"skip": "incomplete"})
    convert_raw_files(strict, tmp_path / "strict")
    assert len(FrameCache.open(tmp_path / "strict" / "frames")) == 8
    del images[4].arrays["REF_forces"], images[4].info["REF_energy"]
    ase.io.write(tmp_path / "mixed.xyz", images)
    with pytest.raises(DataError, match=r"mixed.xyz: frame 4: no energy, forces or stress"):
        convert_raw_files(config, tmp_path / "other")


def test_isolated_atoms_are_in_no_part_and_not_enough(files, tmp_path):
    """They may lie in the files of any part; their energy here is 7."""
    atom = ase.Atoms("H", info={"REF_energy": 7.0, "config_type": "IsolatedAtom"})
    atom.set_array("REF_forces", np.zeros((1, 3)))
    for name in ("a", "d"):
        ase.io.write(tmp_path / "with.xyz", [atom, *ase.io.read(files[name], ":")], format="extxyz")
        (tmp_path / "with.xyz").replace(files[name])
    found = energies_of(tmp_path, {"train": files["a"], "test": files["d"]})
    assert sorted(found["train"] + found["validation"]) == of("a", 10)
    assert found["test"] == of("d", 3)
    ase.io.write(tmp_path / "alone.xyz", atom)
    with pytest.raises(DataError, match=r"alone.xyz: isolated atoms alone"):
        energies_of(tmp_path / "other", {"train": str(tmp_path / "alone.xyz")})


def test_more_frames_than_there_are(files, tmp_path):
    with pytest.raises(DataError, match="11 \\+ 0 \\+ 0 frames are asked for, there are 10"):
        energies_of(tmp_path, {"path": files["a"], "validation": files["b"], "split": {"sizes": [11, 0, 0]}})


def test_the_parts_do_not_depend_on_the_folder(files, tmp_path):
    data = {"train": files["a"], "test": files["b"]}
    assert energies_of(tmp_path / "one", data) == energies_of(tmp_path / "two", data)
    assert len(FrameCache.open(tmp_path / "one" / "run" / "frames")) == 15
