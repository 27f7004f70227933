"""`sdas data simulate`: frames with the facts of how they were made."""

from __future__ import annotations

import ase.io
import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import read_frames

pytest.importorskip("rdkit")
SHORT = ["--interval", "2", "--equilibration", "2"]


def run(*words):
    return CliRunner().invoke(app, ["data", "simulate", *map(str, words)])


def test_frames_are_written_without_labels_and_with_their_facts(tmp_path):
    result = run("--smiles", "CCO", "--frames", 3, "--out", tmp_path / "pool.extxyz", "--seed", 4, *SHORT)
    assert result.exit_code == 0, result.output
    assert "3 frames of 9 atoms from 2 conformers; dropped: none" in result.output
    frames = list(read_frames(tmp_path / "pool.extxyz", require=()))
    assert [(frame.energy, frame.forces, frame.charge, frame.spin) for frame in frames] == [(None, None, 0.0, 1.0)] * 3
    facts = ase.io.read(tmp_path / "pool.extxyz", index=2).info
    assert (facts["engine"], facts["sampling"], facts["seed"], facts["smiles"]) == ("mmff", "dynamics", 4, "CCO")
    assert facts["time_fs"] == pytest.approx(6.0)


def test_a_peptide_can_start_anew_from_its_frames_and_carry_the_labels_of_the_engine(tmp_path):
    first, second = tmp_path / "first.extxyz", tmp_path / "second.extxyz"
    assert run("--sequence", "ACE-ALA-NME", "--engine", "openmm", "--frames", 2, "--out", first, *SHORT).exit_code == 0
    result = run("--start", first, "--labels", "--frames", 2, "--out", second, *SHORT)
    assert result.exit_code == 0, result.output
    assert [frame.forces.shape for frame in read_frames(second)] == [(22, 3)] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--smiles", "C(C"], "the SMILES 'C(C' cannot be read"),
        (["--smiles", "C", "--sequence", "ACE-ALA-NME"], "give one of --smiles, --sequence and --start"),
        ([], "give one of --smiles, --sequence and --start"),
        (["--smiles", "C", "--engine", "amber"], "simulation: engine: must be mmff, uff, openmm, tblite or model:RUN"),
        (["--smiles", "C", "--frames", "0"], "simulation: frames: input should be greater than or equal to 1, got 0"),
        (["--smiles", "C", "--engine", "model:nowhere"], "nowhere: neither a run directory"),
        (["--smiles", "C", "--sampling", "torsions"], "C has no rotatable bond"),
        (["--start", "nowhere.xyz"], "nowhere.xyz does not exist"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(tmp_path, words, said):
    result = run(*words, "--out", tmp_path / "x.extxyz")
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_file_of_others_is_replaced(tmp_path):
    pool, mine = tmp_path / "pool.xyz", tmp_path / "mine.xyz"
    assert run("--smiles", "O", "--frames", 1, "--out", pool, *SHORT).exit_code == 0
    assert run("--smiles", "O", "--frames", 2, "--out", pool, *SHORT).exit_code == 0, "a longer result takes its place"
    before = pool.read_bytes()
    result = run("--start", pool, "--engine", "uff", "--frames", 1, "--out", pool, *SHORT)
    assert (result.exit_code, pool.read_bytes()) == (1, before)
    assert "pool.xyz is read, and would be replaced" in result.stderr
    mine.write_text("notes\n")
    assert run("--smiles", "O", "--frames", 1, "--out", mine, *SHORT).exit_code == 1
    assert mine.read_text() == "notes\n"


def test_a_model_moves_the_atoms_too(tmp_path, make_model):
    from sdas.run.checkpoint import save_model

    save_model(tmp_path / "run", make_model(channels=4, heads=4, lmax=1, layers=1))
    out = tmp_path / "pool.extxyz"
    result = run("--smiles", "CO", "--engine", f"model:{tmp_path / 'run'}", "--frames", 2, "--out", out, *SHORT)
    assert result.exit_code == 0, result.output
    assert len(list(read_frames(out, require=()))) == 2
    result = run("--smiles", "CF", "--engine", f"model:{tmp_path / 'run'}", "--out", out)
    assert "the model does not know F" in result.stderr
