"""Whatever a file says of its units is used, or refused where it is not understood or contradicts what was asked."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from sdas.data import DataError, read_frames
from sdas.data.cli import app
from sdas.data.units import BOHR, GPA, HARTREE, KCAL_PER_MOL

FORCES = np.random.default_rng(0).normal(size=(3, 3))
UNCHECKED = {"check_units": False}


def water(path, info, **results):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=FORCES, **results)
    atoms.info.update(info)
    ase.io.write(path, atoms)
    return path


def copper(path, info, stress=(1.0, 2.0, 3.0, 0.4, 0.5, 0.6), **more):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.zeros((4, 3)), stress=np.array(stress))
    atoms.info.update(info, **more)
    ase.io.write(path, atoms)
    return path


def schnetpack(path, units, distance="Ang", **data):
    atoms = molecule("H2O")
    with ase.db.connect(path) as database:
        database.metadata = {"_property_unit_dict": units, "_distance_unit": distance, "atomrefs": {}}
        database.write(atoms, data=data)
    return path


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
@pytest.mark.parametrize(
    "key", ["energy-unit", "energy_unit", "Energy-Units", "energyUnit", "REF_energy_unit", "units_energy"]
)
def test_a_unit_of_energy_is_found_however_its_key_is_spelled(tmp_path, suffix, key):
    frame = next(read_frames(water(tmp_path / f"a.{suffix}", {key: "hartree"}), **UNCHECKED))
    assert frame.energy == pytest.approx(-2.0 * HARTREE, rel=1e-12)
    np.testing.assert_allclose(frame.forces, FORCES * HARTREE)


@pytest.mark.parametrize("key", ["force-unit", "forces_unit", "Force_Units", "forces-unit", "DFT_forces_unit"])
def test_units_as_dpdata_writes_them(tmp_path, key):
    info = {"energy-unit": "hartree", key: "hartree/bohr"}
    frame = next(read_frames(water(tmp_path / "a.xyz", info), **UNCHECKED))
    assert frame.energy == pytest.approx(-2.0 * HARTREE, rel=1e-12)
    np.testing.assert_allclose(frame.forces, FORCES * HARTREE / BOHR)


@pytest.mark.parametrize("key", ["length_unit", "positions-unit", "distance_unit", "Position_Unit"])
def test_a_unit_of_length_is_used(tmp_path, key):
    path = copper(tmp_path / "a.xyz", {key: "nm", "energy_unit": "eV", "forces_unit": "eV/Å", "stress_unit": "GPa"})
    frame = next(read_frames(path, **UNCHECKED))
    atoms = ase.io.read(path)
    np.testing.assert_allclose(frame.positions, 10 * atoms.positions)
    np.testing.assert_allclose(frame.cell, 10 * atoms.cell.array)


@pytest.mark.parametrize(
    ("word", "factor"), [("GPa", GPA), ("-kbar", -0.1 * GPA), ("bar", 1e-4 * GPA), ("eV/A^3", 1.0)]
)
@pytest.mark.parametrize("key", ["stress_unit", "stress-unit", "Stress-Units"])
def test_a_unit_of_stress_alone_is_used(tmp_path, key, word, factor):
    frame = next(read_frames(copper(tmp_path / "a.xyz", {key: word}), **UNCHECKED))
    assert frame.energy == -2.0
    np.testing.assert_allclose(np.diag(frame.stress), factor * np.array([1, 2, 3]))


@pytest.mark.parametrize(
    ("info", "factor"),
    [({"virial_unit": "kcal/mol", "energy_unit": "eV"}, KCAL_PER_MOL), ({"energy_unit": "Ha"}, HARTREE)],
)
def test_a_unit_of_virials_is_that_of_energies_unless_it_is_named(tmp_path, info, factor):
    virial = np.diag([1.0, 2.0, 3.0])
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(info, virial=virial)
    ase.io.write(tmp_path / "a.xyz", atoms)
    frame = next(read_frames(tmp_path / "a.xyz", require=(), **UNCHECKED))
    np.testing.assert_allclose(frame.stress, -virial * factor / atoms.get_volume())


@pytest.mark.parametrize(
    "info", [{"energy-unit": "nonsense"}, {"force-unit": "eV"}, {"units": "furlongs"}, {"energy_unit": "eV/atom"}]
)
def test_a_unit_that_is_not_understood_is_refused_and_can_be_said(tmp_path, info):
    path = water(tmp_path / "a.xyz", info)
    with pytest.raises(DataError, match=r"a\.xyz: frame 0: .*unit.*--units"):
        next(read_frames(path))
    assert next(read_frames(path, units="eV")).energy == -2.0


def test_a_unit_of_one_quantity_that_leaves_another_open_is_refused(tmp_path):
    path = water(tmp_path / "a.xyz", {"force-unit": "hartree/bohr"})
    with pytest.raises(DataError, match=r"force-unit = hartree/bohr, but not its unit of energy.*--units"):
        next(read_frames(path))
    frame = next(read_frames(path, units="Ha,Å,Ha/bohr", **UNCHECKED))
    assert frame.energy == pytest.approx(-2 * HARTREE)


@pytest.mark.parametrize(
    ("info", "units"),
    [
        ({"energy-unit": "hartree"}, "eV"),
        ({"force-unit": "hartree/bohr"}, "Ha"),
        ({"units": "real"}, "eV"),
        ({"length-unit": "bohr"}, "eV"),
    ],
)
def test_a_unit_that_contradicts_what_was_asked_is_refused(tmp_path, info, units):
    with pytest.raises(DataError, match=r"frame 0: the file declares its units as .* but units="):
        next(read_frames(water(tmp_path / "a.xyz", info), units=units))


def test_two_units_of_one_quantity_contradict_each_other(tmp_path):
    with pytest.raises(DataError, match="energy_unit = eV and energy-unit = hartree contradict"):
        next(read_frames(water(tmp_path / "a.xyz", {"energy_unit": "eV", "energy-unit": "hartree"})))


@pytest.mark.parametrize(("word", "factor"), [("real", KCAL_PER_MOL), ("eV, Å", 1.0), ("kcal/mol", KCAL_PER_MOL)])
def test_one_word_for_all_units_is_understood(tmp_path, word, factor):
    frame = next(read_frames(water(tmp_path / "a.xyz", {"units": word}), **UNCHECKED))
    assert frame.energy == pytest.approx(-2.0 * factor)
    np.testing.assert_allclose(frame.forces, FORCES * factor)


def test_units_that_are_no_units_of_labels_are_left_alone(tmp_path):
    info = {"unit_cell": "conventional", "formula_units": 4, "dipole_unit": "Debye", "time_unit": "fs"}
    assert next(read_frames(water(tmp_path / "a.xyz", info))).energy == -2.0


def test_the_units_of_schnetpack_are_used(tmp_path):
    units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
    path = schnetpack(tmp_path / "a.db", units, energy=np.array([-2.0]), forces=FORCES / KCAL_PER_MOL)
    frame = next(read_frames(path))
    assert frame.energy == pytest.approx(-2.0 * KCAL_PER_MOL, rel=1e-12)
    np.testing.assert_allclose(frame.forces, FORCES)
    with pytest.raises(DataError, match="row 1: the file declares its units as kcal/mol"):
        next(read_frames(path, units="eV"))


def test_lengths_of_schnetpack_in_bohr_are_converted(tmp_path):
    path = schnetpack(
        tmp_path / "a.db", {"energy": "Hartree", "forces": "Hartree/Bohr"}, "Bohr", energy=-2.0, forces=FORCES
    )
    frame = next(read_frames(path, **UNCHECKED))
    np.testing.assert_allclose(frame.positions, molecule("H2O").positions * BOHR)
    np.testing.assert_allclose(frame.forces, FORCES * HARTREE / BOHR)


def test_a_unit_of_schnetpack_that_is_not_understood_is_refused(tmp_path):
    path = schnetpack(tmp_path / "a.db", {"energy": "zorkmid"}, energy=-2.0)
    with pytest.raises(DataError, match=r"a\.db: row 1: .*zorkmid"):
        next(read_frames(path, require=()))


def test_the_energy_of_qm9_is_u0_and_never_gibbs_free_energy(tmp_path):
    names = {"energy_U0": -40.0, "energy_U": -39.9, "enthalpy_H": -39.8, "free_energy": -39.0, "zpve": 0.1}
    path = schnetpack(tmp_path / "a.db", dict.fromkeys(names, "Ha"), **names)
    assert next(read_frames(path, require=("energy",))).energy == pytest.approx(-40.0 * HARTREE)
    assert next(read_frames(path, require=(), energy_key="free_energy")).energy == pytest.approx(-39.0 * HARTREE)
    atoms = molecule("H2O")
    atoms.info.update(names)
    ase.io.write(tmp_path / "a.xyz", atoms)
    assert next(read_frames(tmp_path / "a.xyz", require=("energy",), units="Ha")).energy == pytest.approx(-40 * HARTREE)
    del atoms.info["energy_U0"]
    ase.io.write(tmp_path / "b.xyz", atoms)
    with pytest.raises(DataError, match="no energy"):
        next(read_frames(tmp_path / "b.xyz", require=("energy",)))


def test_a_unit_of_stress_is_refused_for_a_virial(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info["virial"] = np.eye(3)
    ase.io.write(tmp_path / "a.xyz", atoms)
    with pytest.raises(DataError, match=r"virial is a virial, an energy, but units='eV, Å, eV/Å, GPa'"):
        next(read_frames(tmp_path / "a.xyz", require=(), units="eV,Å,eV/Å,GPa"))


def test_the_units_that_a_file_names_are_told(tmp_path):
    path = water(tmp_path / "a.xyz", {"energy-unit": "hartree", "force-unit": "hartree/bohr"})
    result = CliRunner().invoke(app, ["info", str(path), "--skip-unit-checks"])
    assert "units: hartree, hartree/bohr, as the files say" in result.stdout
    assert "note:" not in result.stdout


def test_a_unit_that_is_not_understood_is_told_where_another_is_taken(tmp_path):
    path = water(tmp_path / "a.xyz", {"energy-unit": "nonsense"})
    result = CliRunner().invoke(app, ["info", str(path), "--units", "eV"])
    assert "note: energy-unit = nonsense is not understood; eV, Å is taken" in result.stdout
    assert "as the files say" not in result.stdout


def test_a_unit_of_forces_that_follows_from_that_of_energies_is_told(tmp_path):
    path = water(tmp_path / "a.xyz", {"energy-unit": "hartree"})
    result = CliRunner().invoke(app, ["info", str(path), "--skip-unit-checks"])
    assert "note: the unit of the force is not named; it follows from those of energy and length" in result.stdout
    given = CliRunner().invoke(app, ["info", str(path), "--skip-unit-checks", "--units", "Ha,Å,Ha/bohr"])
    assert "note:" not in given.stdout


@pytest.mark.parametrize(
    ("energy", "forces", "factor"),
    [
        ("energy_kcal_mol", "forces_kcal_mol_A", KCAL_PER_MOL),
        ("Energy_kcal/mol", "Forces_kcal/mol/Ang", KCAL_PER_MOL),
        ("dft_energy_Ha", "dft_forces_Ha_per_angstrom", HARTREE),
        ("energy_eV", "force_eV_A", 1.0),
    ],
)
def test_a_unit_in_the_name_of_a_label_is_used(tmp_path, energy, forces, factor):
    atoms = molecule("H2O")
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(atoms, data={energy: -2.0, forces: FORCES})
    for keys in ({}, {"energy_key": energy, "forces_key": forces}):
        frame = next(read_frames(tmp_path / "a.db", **keys, **UNCHECKED))
        assert frame.energy == pytest.approx(-2.0 * factor)
        np.testing.assert_allclose(frame.forces, FORCES * factor)
    with pytest.raises(DataError, match=f"the name {energy}"):
        next(read_frames(tmp_path / "a.db", units="Ry"))
