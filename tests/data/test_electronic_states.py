"""Charge and spin that files state: read and kept, and told apart from what a model without them can learn."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from sdas.data import DataError, FrameCache, read_frames, write_cache
from sdas.data.cli import app
from sdas.data.duplicates import repeated
from sdas.data.electronic_states import checked_state, one_state_each, state_of_atoms


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


def states(frames):
    return [(frame.charge, frame.spin) for frame in frames]


@pytest.mark.parametrize("suffix", ["xyz", "traj", "db"])
@pytest.mark.parametrize("key", ["charge", "total_charge", "Charge", "spin", "multiplicity", "spin_multiplicity"])
def test_frames_have_the_states_that_files_give_them(tmp_path, suffix, key):
    path = write(tmp_path / f"a.{suffix}", water({key: 1}), water(), water({key: 3}))
    frames = list(read_frames(path))
    wanted = [(1.0, None), (None, None), (3.0, None)]
    assert states(frames) == (wanted if "harge" in key else [(b, a) for a, b in wanted])
    kind = "charge" if "harge" in key else "spin"
    with pytest.raises(DataError, match=rf"{kind} 3, where .* the same atoms has 1; .* without model.charge_spin=true"):
        list(one_state_each(frames))
    assert list(one_state_each(frames[:2])) == frames[:2]


def test_a_cache_keeps_states_and_which_frames_have_none(tmp_path):
    given = [{}, {"charge": -1}, {"spin": 3}, {"charge": 2, "spin": 1}, {}]
    frames = list(read_frames(write(tmp_path / "a.xyz", *map(water, given))))
    cache = write_cache(frames, tmp_path / "cache")
    assert states(cache) == states(FrameCache.open(tmp_path / "cache")) == states(frames)
    assert states(frames) == [(None, None), (-1, None), (None, 3), (2, 1), (None, None)]
    charge, spin = cache.electronic_states().T
    np.testing.assert_array_equal(charge, [np.nan, -1, np.nan, 2, np.nan])
    np.testing.assert_array_equal(spin, [np.nan, np.nan, 3, 1, np.nan])
    cache.verify()
    plain = write_cache([frames[0]], tmp_path / "plain")
    assert not {"charges", "spins"} & set(plain.manifest["arrays"])
    assert np.isnan(plain.electronic_states()).all()
    assert write_cache([frames[1]], tmp_path / "other").fingerprint != plain.fingerprint


def test_charges_of_atoms_add_up_to_the_charge(tmp_path):
    partial = np.array([-0.8, 0.4, 0.4])
    path = write(tmp_path / "a.traj", water(charges=partial), water(charges=[1, 0, 0]), water(charges=[0.3, 0, 0]))
    assert [frame.charge for frame in read_frames(path)] == [0, 1, None]
    sodium = molecule("Na2")[:1]
    sodium.set_initial_charges([1.0])
    assert state_of_atoms(sodium) == {"charge": 1}
    sodium.info = {"charge": 2, "multiplicity": 2, "other": 7}
    assert state_of_atoms(sodium) == {"charge": 2, "spin": 2}


def test_other_compositions_may_have_other_states_and_both_are_told(tmp_path):
    path = write(tmp_path / "a.xyz", water({"charge": 0}), water({"charge": -1}, name="OH"), water({"charge": 0}))
    assert len(list(one_state_each(read_frames(path)))) == 3
    for arguments in (("info", path), ("convert", path, "--to", tmp_path / "c")):
        told = "note: charge -1 in 1 frames, 0 in 2 frames, which a model uses only with model.charge_spin=true"
        assert told in run(*arguments).stdout
    path = write(tmp_path / "b.xyz", water({"charge": 0, "spin": 1}))
    assert "note" not in run("info", path).stdout


def test_files_that_are_converted_together_are_one_set(tmp_path):
    files = [write(tmp_path / f"{charge}.xyz", water({"charge": charge})) for charge in (0, 1)]
    result = run("convert", *files, "--to", tmp_path / "c")
    assert result.exit_code == 0
    assert "note: charge 0 in 1 frames, 1 in 1 frames" in result.stdout
    with pytest.raises(DataError, match=r"1.xyz: frame 0: charge 1, where .*0.xyz: frame 0 with the same atoms has 0"):
        list(one_state_each(FrameCache.open(tmp_path / "c")))


@pytest.mark.parametrize("key", ["charge", "Charge", "spin"])
def test_states_in_npz_files_are_those_of_the_frames(tmp_path, key):
    atoms = molecule("H2O")
    arrays = {"nuclear_charges": atoms.numbers, "coords": np.stack([atoms.positions] * 2)}
    arrays |= {"energies": np.zeros(2), "forces": np.zeros((2, 3, 3))}
    kind = key.lower()
    for stated, wanted in (([3, 1], [3, 1]), (1, [1, 1]), ([[2], [1]], [2, 1])):
        np.savez(tmp_path / "a.npz", **arrays, **{key: stated})
        assert [frame.state for frame in read_frames(tmp_path / "a.npz")] == [{kind: value} for value in wanted]


def test_a_structure_in_another_state_is_no_repetition(tmp_path):
    frames = list(read_frames(write(tmp_path / "a.xyz", water({"charge": 0}), water({"charge": 1}), water())))
    frames += list(read_frames(write(tmp_path / "b.xyz", water({"charge": 1}))))
    assert repeated(frames, np.arange(3), np.array([3])) == [3]
    assert repeated(frames, np.array([0, 2]), np.array([1])) == []


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({"spin": 0}, "of 10 electrons it is odd"),
        ({"spin": 2}, "of 10 electrons it is odd"),
        ({"charge": 1, "spin": 1}, "of 9 electrons it is even"),
        ({"charge": -1.0, "spin": 0.5}, "of 11 electrons it is even"),
        ({"charge": 0.5, "spin": 1.5}, "is no multiplicity"),
    ],
)
def test_a_spin_that_the_electrons_cannot_have_is_an_error(state, wanted):
    with pytest.raises(DataError, match=f"water: spin .*{wanted}.*of unpaired electrons, or S, write the multiplicity"):
        checked_state(state, molecule("H2O").numbers, "water")


@pytest.mark.parametrize(
    "state",
    [{}, {"charge": 5}, {"spin": 1}, {"spin": 3}, {"charge": 1, "spin": 2}, {"charge": 0.5, "spin": 2}],
)
def test_a_spin_that_the_electrons_can_have_is_none(state):
    assert checked_state(state, molecule("H2O").numbers, "water") == state
