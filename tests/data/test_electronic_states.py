"""Charge and spin that a file states are told; where they are needed to tell structures apart, the set is refused."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from sdas.data import DataError, read_frames
from sdas.data.cli import app


def water(info=(), charges=None, name="H2O"):
    atoms = molecule(name)
    if charges is not None:
        atoms.set_initial_charges(charges)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((len(atoms), 3)))
    atoms.info.update(info)
    return atoms


def write(path, *frames):
    if path.suffix == ".db":
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms, data=atoms.info)
    else:
        ase.io.write(path, frames)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", ["xyz", "traj", "db"])
@pytest.mark.parametrize("key", ["charge", "total_charge", "Charge", "spin", "multiplicity", "spin_multiplicity"])
def test_two_states_of_one_composition_are_refused(tmp_path, suffix, key):
    path = write(tmp_path / f"a.{suffix}", water({key: 0}), water({key: 0}), water({key: 2}))
    kind = "charge" if "harge" in key else "spin"
    with pytest.raises(
        DataError, match=rf"{kind} 2, where .*with the same atoms has 0; the model does not know of {kind}"
    ):
        list(read_frames(path))


def test_charges_of_atoms_add_up_to_the_charge(tmp_path):
    partial = np.array([-0.8, 0.4, 0.4])
    assert len(list(read_frames(write(tmp_path / "a.traj", water(charges=partial), water(charges=2 * partial))))) == 2
    path = write(tmp_path / "b.traj", water(charges=partial), water(charges=[1, 0, 0]))
    with pytest.raises(DataError, match=r"frame 1: charge 1, where .*frame 0 with the same atoms has 0"):
        list(read_frames(path))


def test_other_compositions_may_have_other_states_and_both_are_told(tmp_path):
    path = write(tmp_path / "a.xyz", water({"charge": 0}), water({"charge": -1}, name="OH"), water({"charge": 0}))
    assert len(list(read_frames(path))) == 3
    for arguments in (("info", path), ("convert", path, "--to", tmp_path / "c")):
        assert "note: the model does not use the charge: -1 in 1 frames, 0 in 2 frames" in run(*arguments).stdout
    path = write(tmp_path / "b.xyz", water({"charge": 0, "spin": 1}))
    assert "note" not in run("info", path).stdout


def test_files_that_are_converted_together_are_one_set(tmp_path):
    files = [write(tmp_path / f"{charge}.xyz", water({"charge": charge})) for charge in (0, 1)]
    result = run("convert", *files, "--to", tmp_path / "c")
    assert result.exit_code == 1
    assert "1.xyz: frame 0: charge 1, where" in result.stderr
    assert "0.xyz: frame 0 with the same atoms has 0" in result.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("key", ["charge", "Charge", "spin"])
def test_states_in_npz_files_are_compared(tmp_path, key):
    atoms = molecule("H2O")
    arrays = {"nuclear_charges": atoms.numbers, "coords": np.stack([atoms.positions] * 2)}
    arrays |= {"energies": np.zeros(2), "forces": np.zeros((2, 3, 3))}
    np.savez(tmp_path / "a.npz", **arrays, **{key: [0, 1]})
    with pytest.raises(DataError, match=rf"frame 1: {key.lower()} 1, where .* has 0"):
        list(read_frames(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **arrays, **{key: 1})
    assert len(list(read_frames(tmp_path / "b.npz"))) == 2
