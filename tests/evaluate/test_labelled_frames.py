"""A model is compared with the labels that it learned: files are read as the run read its own; what differs is said."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from sdas.cli import app
from sdas.config import parse_config, render_config
from sdas.config.reading import make_reading_options
from sdas.data import FrameCache, read_frames, write_cache
from sdas.data.reading_notes import ReadingNotes
from sdas.data.units import KCAL_PER_MOL
from sdas.run.checkpoint import save_model
from sdas.run.frames import convert_raw_files

CCSD = {"energy_key": "ccsd_energy", "forces_key": "ccsd_forces", "units": "kcal/mol"}


def write(path: Path, names: tuple[str, ...] = ("REF", "ccsd"), seed: int = 0) -> Path:
    """Six waters, with labels under every name; no two names agree."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(6):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        for name in names:
            atoms.info[f"{name}_energy"] = float(rng.normal())
            atoms.set_array(f"{name}_forces", rng.normal(size=(3, 3)))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.fixture
def make_run(make_model, tmp_path):
    """A function that makes a run on a raw file or a cache, untrained, with options of its section data."""

    def make(path: Path, **options: object) -> Path:
        folder = tmp_path / "run"
        save_model(folder / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
        data = {"path": str(path), "split": {"sizes": [4, 1, 1]}, **options}
        config = parse_config({"run_dir": str(folder), "data": data, "train": {"steps": 1}}, "test")
        (folder / "config.yaml").write_text(render_config(config))
        convert_raw_files(config.data, folder)
        return folder

    return make


def evaluate(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def compared_energies(folder: Path) -> np.ndarray:
    with np.load(folder / "predictions.npz") as stored:
        return stored["reference_energies"]


def energies(path: Path, **options: object) -> list[float]:
    return [frame.energy for frame in read_frames(path, **options)]


def test_keys_and_units_are_those_of_the_run(make_run, tmp_path):
    run = make_run(write(tmp_path / "train.xyz"), **CCSD)
    test = write(tmp_path / "test.extxyz", seed=1)
    for model in (run, run / "model"):
        said = evaluate(model, test, "--out", tmp_path / "out")
        np.testing.assert_array_equal(compared_energies(tmp_path / "out"), energies(test, **CCSD))
        assert "labels: energy from ccsd_energy; forces from ccsd_forces" in said
        assert "units kcal/mol" in said
        assert f"as {run / 'frames'}" in said
    reading = json.loads((tmp_path / "out" / "evaluation.json").read_text())["reading"]
    assert reading["options"] == CCSD
    assert reading["labels"]["energy"] == {"ccsd_energy": 6}


def test_keys_and_units_are_those_of_the_cache_that_the_run_was_given(make_run, tmp_path):
    source, notes = write(tmp_path / "train.xyz"), ReadingNotes()
    frames = read_frames(source, **CCSD, notes=notes)
    write_cache(frames, tmp_path / "cache", options=make_reading_options(CCSD), notes=notes)
    run = make_run(tmp_path / "cache")
    test = write(tmp_path / "test.xyz", seed=1)
    assert "labels: energy from ccsd_energy" in evaluate(run, test)
    np.testing.assert_array_equal(compared_energies(run), energies(test, **CCSD))
    assert "labels: energy from ccsd_energy" in evaluate(run)
    assert "labels: energy from ccsd_energy" in evaluate(run, tmp_path / "cache")


def test_flags_override_and_a_difference_is_said(make_run, tmp_path):
    run = make_run(write(tmp_path / "train.xyz"), **CCSD)
    test = write(tmp_path / "test.xyz", seed=1)
    flags = ["--energy-key", "REF_energy", "--forces-key", "REF_forces", "--units", "eV"]
    said = evaluate(run, test, *flags)
    np.testing.assert_array_equal(
        compared_energies(run), energies(test, energy_key="REF_energy", forces_key="REF_forces")
    )
    assert "note: energy was learned from ccsd_energy, and is now REF_energy" in said
    other = tmp_path / "other.xyz"
    other.write_text(test.read_text().replace("ccsd_", "mp2_"))
    said = CliRunner().invoke(app, ["evaluate", str(run), str(other)]).stderr
    assert "frame 0: no energy, forces or stress called ccsd_energy or ccsd_forces" in said


def test_labels_under_another_name_than_the_run_found_are_pointed_out(make_run, tmp_path):
    run = make_run(write(tmp_path / "train.xyz", ("REF",)))
    said = evaluate(run, write(tmp_path / "test.xyz", ("DFT",), seed=1))
    assert "note: energy was learned from REF_energy, and is now DFT_energy" in said
    assert "note: forces was learned from REF_forces, and is now DFT_forces" in said


def test_units_of_one_format_are_not_taken_for_those_of_another(make_run, tmp_path):
    train = write(tmp_path / "train.xyz", ("REF",))
    frames = list(read_frames(train))
    np.savez(
        tmp_path / "train.npz",
        z=frames[0].numbers,
        R=np.stack([frame.positions for frame in frames]),
        E=np.array([frame.energy for frame in frames]) / KCAL_PER_MOL,
        F=np.stack([frame.forces for frame in frames]) / KCAL_PER_MOL,
    )
    run = make_run(tmp_path / "train.npz", units="kcal/mol")
    assert [frame.energy for frame in FrameCache.open(run / "frames")] == pytest.approx(energies(train))
    evaluate(run, train)
    np.testing.assert_array_equal(compared_energies(run), energies(train))
    evaluate(run, tmp_path / "train.npz")
    assert compared_energies(run) == pytest.approx(energies(train))


def test_a_format_named_for_one_kind_of_file_is_not_taken_for_another(make_run, tmp_path):
    odd = write(tmp_path / "train.odd", ("REF",))
    run = make_run(odd, format="ase:extxyz")
    evaluate(run, write(tmp_path / "test.odd", ("REF",), seed=1))
    np.testing.assert_array_equal(compared_energies(run), energies(tmp_path / "test.odd", format="ase:extxyz"))
    frames = list(ase.io.iread(odd, format="extxyz"))
    for atoms in frames:
        labels = {"energy": atoms.info["REF_energy"], "forces": atoms.arrays["REF_forces"]}
        atoms.calc = SinglePointCalculator(atoms, **labels)
    ase.io.write(tmp_path / "test.traj", frames)
    evaluate(run, tmp_path / "test.traj")
    assert compared_energies(run) == pytest.approx(energies(odd, format="ase:extxyz"))


def test_a_model_alone_does_not_know_and_says_so(make_model, tmp_path):
    save_model(tmp_path / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    data = write(tmp_path / "test.xyz", ("REF",))
    said = evaluate(tmp_path / "model", data, "--out", tmp_path / "out")
    assert "how the model's own frames were read is not known" in said


def test_flags_without_files_are_refused(make_run, tmp_path):
    run = make_run(write(tmp_path / "train.xyz", ("REF",)))
    result = CliRunner().invoke(app, ["evaluate", str(run), "--energy-key", "x"])
    assert result.exit_code == 1
    assert "--energy-key is for raw files: name them after the model" in result.stderr
