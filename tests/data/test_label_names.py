"""Labels are found under the names that the field gives them, and what was not read is told with the flag for it."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from sdas.data import DataError, read_frames
from sdas.data.cli import app
from sdas.data.reading_notes import ReadingNotes

RNG = np.random.default_rng(3)
FORCES = RNG.normal(size=(4, 3))
VIRIAL = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])


def crystal(info=(), arrays=()):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(info)
    for name, values in dict(arrays).items():
        atoms.set_array(name, values)
    return atoms


def first(path, *frames, **options):
    ase.io.write(path, frames)
    return next(read_frames(path, **{"require": (), **options}))


def told(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "name",
    ["energy", "Energy", "REF_energy", "ref-energy", "DFT_energy", "dft_Energy", "energy_dft", "TotEnergy", "U0"],
)
def test_energies_are_found(tmp_path, name):
    assert first(tmp_path / "a.xyz", crystal({name: -3.0})).energy == -3.0


@pytest.mark.parametrize(
    "name",
    ["forces", "Force", "dft_force", "REF_force", "ref_forces", "Forces", "forces_dft", "DFT-Forces", "MACE_forces"],
)
def test_forces_are_found(tmp_path, name):
    frame = first(tmp_path / "a.xyz", crystal({}, {name: FORCES}))
    np.testing.assert_allclose(frame.forces, FORCES, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["Virial", "virials", "REF_virials", "dft_virial", "VIRIAL", "REF-virial", "virial_dft"]
)
@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_virials_are_found(tmp_path, name, suffix):
    atoms = crystal({name: VIRIAL})
    np.testing.assert_allclose(first(tmp_path / f"a.{suffix}", atoms).stress, -VIRIAL / atoms.get_volume())


@pytest.mark.parametrize("name", ["stress", "Stress", "REF_stress", "dft_stress", "STRESS"])
def test_stresses_are_found(tmp_path, name):
    np.testing.assert_allclose(first(tmp_path / "a.xyz", crystal({name: VIRIAL})).stress, VIRIAL)


def test_keys_of_a_data_base_are_found_in_any_case(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(crystal(), data={"REF_Forces": FORCES, "Virial": VIRIAL}, dft_Energy=-7.0)
    frame = next(read_frames(tmp_path / "a.db"))
    assert frame.energy == -7.0
    np.testing.assert_array_equal(frame.forces, FORCES)
    np.testing.assert_allclose(frame.stress, -VIRIAL / crystal().get_volume())


def test_a_data_base_in_json_is_found_out(tmp_path):
    with ase.db.connect(tmp_path / "a.json") as database:
        database.write(crystal(), data={"forces": FORCES}, dft_energy=-7.0)
    frame = next(read_frames(tmp_path / "a.json"))
    assert frame.energy == -7.0
    np.testing.assert_array_equal(frame.forces, FORCES)


def test_predictions_are_read_only_where_there_is_no_other_and_it_is_told(tmp_path):
    predicted = {"MACE_forces": FORCES}
    both = crystal({"REF_energy": -1.0, "MACE_energy": -9.0}, {**predicted, "REF_forces": 2 * FORCES})
    frame = first(tmp_path / "both.xyz", both)
    assert frame.energy == -1.0
    np.testing.assert_allclose(frame.forces, 2 * FORCES, atol=1e-8)
    path = tmp_path / "alone.xyz"
    ase.io.write(path, crystal({"energy": -1.0}, predicted))
    assert "the forces MACE_forces are predictions by their name" in told("info", path)
    assert "--forces-key MACE_forces would read it" in told("info", tmp_path / "both.xyz")


def test_a_better_name_in_a_later_frame_is_refused(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [crystal({"MACE_energy": -9.0}), crystal({"MACE_energy": -9.0, "energy": -1.0})])
    with pytest.raises(DataError, match=r"frame 1: the energy of earlier frames is called 'MACE_energy'.*--energy-key"):
        list(read_frames(tmp_path / "a.xyz", require=()))


@pytest.mark.parametrize(("name", "other"), [("Energy", "dft_energy"), ("REF_energy", "energy_dft")])
def test_two_names_that_disagree_are_refused_in_any_case(tmp_path, name, other):
    with pytest.raises(DataError, match=rf"{name} = -1.0, {other} = -2.0.*--energy-key"):
        first(tmp_path / "a.xyz", crystal({name: -1.0, other: -2.0}))


def test_other_energies_are_not_the_label(tmp_path):
    info = {"energy_per_atom": -1.0, "kinetic_energy": 0.1, "band_energy": 3.0, "enthalpy": -2.0, "energy_sigma": 0.1}
    with pytest.raises(DataError, match="no energy"):
        first(tmp_path / "a.xyz", crystal(info), require=("energy",))


def labelled(count=3):
    frames = []
    for _ in range(count):
        atoms = crystal(
            {"ccsd_energy": -5.0, "level": "CC", "dipole_unit": "D"}, {"ccsd_forces": FORCES, "rank": np.arange(4)}
        )
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=FORCES, magmoms=np.zeros(4))
        atoms.info["other_virial"] = VIRIAL
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("command", ["info", "convert"])
def test_what_was_not_read_is_listed_with_the_flag_that_would_read_it(tmp_path, command):
    path = tmp_path / "a.xyz"
    ase.io.write(path, labelled())
    output = told(command, path, *(["--to", tmp_path / "cache"] if command == "convert" else []))
    assert "ccsd_energy (3 frames; --energy-key ccsd_energy would read it)" in output
    assert "ccsd_forces (3 frames; --forces-key ccsd_forces would read it)" in output
    assert "other_virial (3 frames; --stress-key other_virial would read it)" in output
    assert "level (3 frames)" in output
    assert "rank (3 frames)" in output
    assert "magmoms (3 frames)" in output
    flags = ("--energy-key", "ccsd_energy", "--forces-key", "ccsd_forces", "--stress-key", "other_virial")
    read = told("info", path, *flags)
    assert "labels: energy from ccsd_energy; forces from ccsd_forces; stress from other_virial" in read
    assert "energy (3 frames; --energy-key energy would read it)" in read


def test_what_other_formats_hold_beside_labels_is_listed(tmp_path):
    water = molecule("H2O")
    frames = {"nuclear_charges": water.numbers, "coords": water.positions[None], "energies": [-1.0]}
    np.savez(tmp_path / "a.npz", **frames, forces=np.zeros((1, 3, 3)), ccsd_energies=[-2.0], level="CC")
    output = told("info", tmp_path / "a.npz")
    assert "ccsd_energies (1 frames; --energy-key ccsd_energies would read it)" in output
    assert "level (1 frames)" in output


def test_arrays_of_deepmd_that_are_not_read_are_listed(tmp_path):
    folder = tmp_path / "a" / "set.000"
    folder.mkdir(parents=True)
    (tmp_path / "a" / "type.raw").write_text("0 0 0 0")
    (tmp_path / "a" / "type_map.raw").write_text("Cu")
    arrays = {"coord": crystal().positions, "box": crystal().cell.array, "energy": -1.0, "force": FORCES}
    for name, values in {**arrays, "force_ccsd": FORCES, "atom_ener": np.zeros(4), "virial_ccsd": VIRIAL}.items():
        np.save(folder / f"{name}.npy", np.reshape(values, (1, -1)))
    output = told("info", tmp_path / "a")
    assert "force_ccsd (1 frames; --forces-key force_ccsd would read it)" in output
    assert "virial_ccsd (1 frames; --stress-key virial_ccsd would read it)" in output
    assert "atom_ener (1 frames)" in output


def test_columns_of_a_plain_xyz_file_are_told(tmp_path):
    (tmp_path / "a.xyz").write_text("2\nenergy=-1\nH 0 0 0 1 0 0\nH 0 0 0.74 -1 0 0\n")
    assert "note: columns 5 to 7 of" in told("info", tmp_path / "a.xyz")
    ase.io.write(tmp_path / "b.xyz", crystal({"energy": -1.0}, {"forces": FORCES}))
    assert "are not read" not in told("info", tmp_path / "b.xyz")


def test_nothing_is_listed_where_everything_was_read(tmp_path):
    notes = ReadingNotes()
    ase.io.write(tmp_path / "a.xyz", crystal({"REF_energy": -1.0, "energy_unit": "eV"}, {"REF_forces": FORCES}))
    list(read_frames(tmp_path / "a.xyz", notes=notes))
    assert notes.document()["unused"] == {}


@pytest.mark.parametrize("change", [str, str.lower, str.upper, str.swapcase])
@pytest.mark.parametrize("pbc", ["T T F", "F F F", None])
def test_extended_xyz_is_read_whatever_the_case_of_its_keys(tmp_path, change, pbc):
    path = tmp_path / "a.xyz"
    keys = [change("Lattice"), change("pbc"), change("Properties"), change("species"), change("pos")]
    periodic = "" if pbc is None else f'{keys[1]}="{pbc}"'
    path.write_text(
        f'2\n{keys[0]}="4 0 0 1 5 0 0 0 6" {periodic} {keys[2]}={keys[3]}:S:1:{keys[4]}:R:3:Force:R:3 Energy=-1\n'
        "H 0 0 0 1 0 0\nH 0 0 0.74 -1 0 0\n"
    )
    frame = next(read_frames(path))
    np.testing.assert_array_equal(frame.cell, [[4, 0, 0], [1, 5, 0], [0, 0, 6]])
    assert frame.pbc.tolist() == [word == "T" for word in (pbc or "T T T").split()]
    np.testing.assert_array_equal(frame.forces, [[1, 0, 0], [-1, 0, 0]])
    np.testing.assert_array_equal(frame.positions, [[0, 0, 0], [0, 0, 0.74]])
