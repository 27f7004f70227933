"""The command: one document and one page, which claim only what the controls allow."""

import json
import re

import numpy as np
import pytest
from ase.io import write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.errors import SdasError
from sdas.interpret import interpret
from sdas.interpret.bonds import atoms_of
from sdas.run.checkpoint import save_model


@pytest.fixture
def model(make_model):
    return make_model(layers=2, lmax=1)


def test_an_untrained_model_is_no_finding_in_its_bonds(model, ethanol_frames):
    found = interpret(model, ethanol_frames[:20], seeds=[1, 2])
    bonds = found["bonds"]
    assert (bonds["bonds"], bonds["auc_of_distance"]) == (8, 1.0)
    assert not bonds["mean_of_heads"]["finding"]
    assert not bonds["best_head"]["finding"]
    assert "no finding" in found["findings"][0]
    assert np.shape(found["attention"]["maps"]) == (2, 4, 9, 9)
    assert np.shape(bonds["auc_of_layers_and_heads"]) == (2, 4)
    assert found["coordinate"]["scan"]["model"]["r2"][0] > 0.5  # any smooth feature follows a rigid scan
    json.dumps(found, allow_nan=False)


def test_frames_of_other_atoms_give_what_they_can(model, ethanol_frames, systems):
    water = systems["liquid"]
    from sdas.data import Frame

    cell, pbc = np.array(water.cell.array), np.array(water.pbc)
    other = Frame(water.numbers.astype(np.int64), water.positions, cell, pbc, None, None, None, "water")
    found = interpret(model, [ethanol_frames[0], other], seeds=[1])
    assert found["bonds"]["bonds"] == 8 + 16
    assert found["attention"] is None
    assert any("differ in their atoms" in note for note in found["notes"])


def test_a_transfer_is_scanned_and_followed_among_the_frames(model, ethanol_frames):
    """The hydrogen of the hydroxyl group, on its way from oxygen to the far carbon."""
    first = ethanol_frames[0]
    oxygen = int(np.flatnonzero(first.numbers == 8)[0])
    hydrogen, carbon = (np.flatnonzero(first.numbers == z) for z in (1, 6))
    near = hydrogen[np.linalg.norm(first.positions[hydrogen] - first.positions[oxygen], axis=1).argmin()]
    far = carbon[np.linalg.norm(first.positions[carbon] - first.positions[oxygen], axis=1).argmax()]
    found = interpret(model, ethanol_frames, seeds=[1], transfer=[oxygen, near, far])
    coordinate = found["coordinate"]
    room = np.linalg.norm(first.positions[far] - first.positions[oxygen])
    assert coordinate["scan"]["values"] == pytest.approx(np.linspace(1.8 - room, room - 1.8, 36).tolist())
    atoms = [atoms_of(frame) for frame in ethanol_frames]
    values = [each.get_distance(oxygen, near) - each.get_distance(near, far) for each in atoms]
    assert coordinate["frames"]["values"] == pytest.approx(values)
    component = coordinate["frames"]["model"]["components"][1]
    assert coordinate["frames"]["model"]["r2"][1] == pytest.approx(np.corrcoef(component, values)[0, 1] ** 2)
    assert found["findings"][-1].startswith(
        "Among the frames, the first component of the features follows the transfer"
    )
    for wrong, message in (([0, 1], "three different atoms"), ([oxygen, far, near], "farther than 1.8 Å apart")):
        with pytest.raises(SdasError, match=message):
            interpret(model, ethanol_frames, seeds=[1], transfer=wrong)
    with pytest.raises(SdasError, match="a torsion or a transfer: give one"):
        interpret(model, ethanol_frames, seeds=[1], transfer=[0, 1, 2], torsion=[0, 1, 2, 3])


def test_the_command_writes_numbers_and_a_page(model, ethanol_frames, tmp_path):
    save_model(tmp_path / "model", model)
    write(tmp_path / "frames.extxyz", [atoms_of(frame) for frame in ethanol_frames[:4]])
    common = ["interpret", str(tmp_path / "model"), "--data", str(tmp_path / "frames.extxyz"), "--seeds", "1"]
    result = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "no finding" in result.output
    numbers = json.loads((tmp_path / "out" / "interpret.json").read_text())
    assert numbers["contributions"][0]["force_error_mev_per_ang"] is None
    page = (tmp_path / "out" / "interpret.html").read_text()
    assert page.count("<svg") == 2 * 3 + 1  # of two layers and of the scan; four frames are too few for others
    assert not re.search(r"(?:src|href)=[\"']https?:", page)
    result = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "out"), "--torsion", "0,1"])
    assert result.exit_code == 1
    assert "--torsion must be 4 atoms, as 0,1,2,3, got '0,1'" in result.output
    result = CliRunner().invoke(app, common)
    assert "name a folder with --out" in result.output


def test_a_killed_command_leaves_what_was_there_and_runs_again(model, ethanol_frames, tmp_path, killed_at_write):
    save_model(tmp_path / "model", model)
    write(tmp_path / "frames.extxyz", [atoms_of(frame) for frame in ethanol_frames[:2]])
    command = ["interpret", str(tmp_path / "model"), "--data", str(tmp_path / "frames.extxyz"), "--seeds", "1"]
    command += ["--out", str(tmp_path / "out")]
    numbers, page = tmp_path / "out" / "interpret.json", tmp_path / "out" / "interpret.html"
    killed_at_write(1, lambda: CliRunner().invoke(app, command))
    assert not numbers.exists()
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    before = numbers.read_text(), page.read_text()
    killed_at_write(1, lambda: CliRunner().invoke(app, command))
    assert (numbers.read_text(), page.read_text()) == before
    assert CliRunner().invoke(app, command).output == first.output
