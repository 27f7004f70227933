"""What a run leaves can be read back, belongs to one model and one system, and harms no file of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import read_frames
from sdas.errors import SdasError
from sdas.md import MDSettings, SDASCalculator, simulate
from sdas.md.folder import LOG, STATE, SUMMARY, TRAJECTORY, read_log
from sdas.run.checkpoint import save_model
from sdas.run.lock import FolderInUseError


def run(potential, atoms, folder, fresh=False, dtype=torch.float64, **settings):
    settings = {"steps": 12, "sample_every": 3, "save_every": 6, "timestep_fs": 0.5, **settings}
    return simulate(atoms, SDASCalculator(potential, dtype), MDSettings(**settings), folder, fresh=fresh)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# what is read back


@pytest.mark.parametrize("masses", [None, [1.0, 2.0, 200.0]])
def test_ase_reads_the_kinetic_energy_back(pair_potential, molecule, tmp_path, masses):
    if masses:
        molecule.set_masses(masses)
    run(pair_potential, molecule, tmp_path, temperature_k=900.0)
    frames, log = read(tmp_path / TRAJECTORY, ":"), read_log(tmp_path)
    assert log["kinetic_ev"].min() > 0.001
    np.testing.assert_allclose([frame.get_kinetic_energy() for frame in frames], log["kinetic_ev"], rtol=1e-6)
    for frame in frames:
        assert frame.get_masses() == pytest.approx(molecule.get_masses())
        assert (frame.info["masses_unit"], frame.info["momenta_unit"]) == ("u", "sqrt(u*eV)")


def test_heavy_atoms_are_slow(pair_potential, molecule, tmp_path):
    molecule.set_masses([1.0, 16.0, 1600.0])
    run(pair_potential, molecule, tmp_path, ensemble="nvt")
    frames = read(tmp_path / TRAJECTORY, ":")
    moved = np.linalg.norm(frames[-1].positions - frames[0].positions, axis=1)
    assert moved[0] > moved[1] > 3 * moved[2]


def test_our_reader_takes_the_trajectory(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    found = list(read_frames(tmp_path / TRAJECTORY, require=["energy"]))
    expected = read(tmp_path / TRAJECTORY, ":")
    assert len(found) == len(expected) == 5
    for frame, atoms in zip(found, expected, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(frame.positions, atoms.positions)


# what a resumed run must share


def test_other_masses_are_told_by_atom(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    before = content(tmp_path)
    molecule.set_masses([15.999, 18.0, 15.999])
    with pytest.raises(SdasError, match=r"atom 1 weighs 15.999 u, not 18.0 u"):
        run(pair_potential, molecule, tmp_path, steps=20)
    assert content(tmp_path) == before


@pytest.mark.parametrize("mass", [0.0, -1.0, float("nan")])
def test_masses_that_are_none_are_refused(pair_potential, molecule, tmp_path, mass):
    molecule.set_masses([16.0, mass, 16.0])
    with pytest.raises(SdasError, match=r"atom 1 weighs .* masses must be positive"):
        run(pair_potential, molecule, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_model_does_not_go_on_with_a_trajectory(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    first = json.loads((tmp_path / SUMMARY).read_text())["model"]
    assert first == SDASCalculator(pair_potential, torch.float32).fingerprint
    before = content(tmp_path)
    with torch.no_grad():
        pair_potential.depth += 0.01
    other = SDASCalculator(pair_potential).fingerprint
    words = rf"another model \({first[:12]}…\) than this one \({other[:12]}…\): choose another folder, or .*--fresh"
    with pytest.raises(SdasError, match=words):
        run(pair_potential, molecule, tmp_path, steps=20)
    assert content(tmp_path) == before
    run(pair_potential, molecule, tmp_path, fresh=True)
    assert json.loads((tmp_path / SUMMARY).read_text())["model"] == other


def test_another_dtype_does_not_go_on_with_a_trajectory(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    with pytest.raises(SdasError, match="dtype float64, not float32"):
        run(pair_potential, molecule, tmp_path, steps=20, dtype=torch.float32)


def test_a_state_of_an_earlier_version_is_of_an_unknown_model(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    with np.load(tmp_path / STATE) as stored:
        facts = json.loads(stored["facts"].item())
        del facts["identity"]
        arrays = {"positions": stored["positions"], "momenta": stored["momenta"]}
    np.savez(tmp_path / STATE, **arrays, facts=np.array(json.dumps(facts)))
    with pytest.raises(SdasError, match=r"earlier version, which noted neither the model nor the masses.*--fresh"):
        run(pair_potential, molecule, tmp_path)
    run(pair_potential, molecule, tmp_path, fresh=True)


# whose files they are


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", [LOG, TRAJECTORY, STATE, SUMMARY, "notes.txt"])
def test_a_folder_with_files_of_others_is_refused(pair_potential, molecule, tmp_path, name, fresh):
    (tmp_path / name).write_text("step,what I measured by hand\n")
    with pytest.raises(SdasError, match=f"holds {name}, which no run of dynamics wrote there: choose another folder"):
        run(pair_potential, molecule, tmp_path, fresh=fresh)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "step,what I measured by hand\n"


def test_a_run_with_notes_beside_it_is_lengthened_but_not_replaced(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path)
    (tmp_path / "notes.txt").write_text("precious")
    run(pair_potential, molecule, tmp_path, steps=15)
    before = content(tmp_path)
    with pytest.raises(SdasError, match=r"notes.txt"):
        run(pair_potential, molecule, tmp_path, fresh=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", [LOG, TRAJECTORY])
def test_an_output_that_somebody_changed_is_not_cut(pair_potential, molecule, tmp_path, name):
    run(pair_potential, molecule, tmp_path)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("0", "1") + text)
    before = content(tmp_path)
    with pytest.raises(SdasError, match=f"{name}: changed since the run was saved"):
        run(pair_potential, molecule, tmp_path, steps=20)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", [LOG, TRAJECTORY, STATE, SUMMARY])
def test_a_run_that_lost_a_file_can_be_replaced(pair_potential, molecule, tmp_path, name):
    run(pair_potential, molecule, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    if name == STATE:
        with pytest.raises(SdasError, match=r"holds log.csv"):
            run(pair_potential, molecule, tmp_path / "run", fresh=True)
        return
    run(pair_potential, molecule, tmp_path / "run", fresh=True)
    assert sorted(os.listdir(tmp_path / "run")) == sorted([LOG, TRAJECTORY, STATE, SUMMARY])


class Refusing(SDASCalculator):
    """Fails at the first calculation."""

    def calculate(self, *args, **kwargs):
        raise SdasError("no")


def test_fresh_replaces_nothing_before_the_new_run_has_begun(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path / "run")
    before = content(tmp_path)
    close = molecule.copy()
    close.positions[1] = close.positions[0] + 0.01
    strange = Atoms("XeO2", positions=molecule.positions)
    heavy = molecule.copy()
    heavy.set_masses([0, 1, 1])
    for atoms in (close, strange, heavy):
        with pytest.raises(SdasError):
            run(pair_potential, atoms, tmp_path / "run", fresh=True)
    with pytest.raises(SdasError, match="no"):
        simulate(molecule, Refusing(pair_potential), MDSettings(), tmp_path / "run", fresh=True)
    assert content(tmp_path) == before


def test_a_kill_leaves_the_old_run_or_the_new_one(pair_potential, molecule, tmp_path, killed_at_write):
    seeds = []
    for moment in range(1, 16, 2):
        folder = tmp_path / f"run-{moment}"
        run(pair_potential, molecule, folder, seed=0)
        killed_at_write(moment, lambda folder=folder: run(pair_potential, molecule, folder, seed=1, fresh=True))
        with np.load(folder / STATE) as state:
            seeds.append(json.loads(state["facts"].item())["identity"]["physics"]["seed"])
        run(pair_potential, molecule, folder, seed=seeds[-1], steps=15)
        assert read_log(folder)["step"].tolist() == list(range(0, 16, 3))
        assert sorted(os.listdir(folder)) == sorted([LOG, TRAJECTORY, STATE, SUMMARY])
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 1}
    assert sorted(os.listdir(tmp_path)) == sorted(f"run-{moment}" for moment in range(1, 16, 2))


@pytest.fixture
def model_dir(make_model, tmp_path):
    save_model(tmp_path / "mine" / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    return tmp_path / "mine"


def test_two_runs_do_not_tear_a_trajectory(model_dir, tmp_path):
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    words = ["md", str(model_dir), "--structure", str(tmp_path / "water.xyz"), "--every", "1", "--timestep", "0.1"]
    first = subprocess.Popen([sys.executable, "-m", "sdas.cli", *words, "--steps", "100000"], stderr=subprocess.PIPE)
    try:
        while not (model_dir / "md" / STATE).exists():
            assert first.poll() is None, first.stderr.read()
        for flags in ([], ["--fresh"]):
            second = CliRunner().invoke(app, ["--debug", *words, "--steps", "5", *flags])
            assert isinstance(second.exception, FolderInUseError)
            assert f"in use by process {first.pid} on" in str(second.exception)
    finally:
        first.kill()
        first.wait()
        first.stderr.close()
    steps = json.loads(np.load(model_dir / "md" / STATE)["facts"].item())["step"] + 3
    result = CliRunner().invoke(app, ["--debug", *words, "--steps", str(steps)])
    assert result.exit_code == 0, result.output
    frames = read(model_dir / "md" / TRAJECTORY, ":")
    assert [frame.info["step"] for frame in frames] == list(range(steps + 1))


def test_a_model_directory_is_no_place_for_results(model_dir, tmp_path):
    """It is replaced as a whole when the model is saved again."""
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    words = ["--debug", "md", str(model_dir / "model"), "--structure", str(tmp_path / "water.xyz"), "--steps", "2"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, SdasError)
    assert "--out" in str(result.exception)
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")]).exit_code == 0
