"""Files that ASE reads: labels found by name, ambiguity refused, raw forces of constrained atoms, declared units."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from sdas.data import DataError, read_frames
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.units import HARTREE, KCAL_PER_MOL


def labelled(energy=-1.0, forces=None, info=None, **results):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(
        atoms, energy=energy, forces=np.ones((3, 3)) if forces is None else forces, **results
    )
    atoms.info.update(info or {})
    return atoms


def bare(info, arrays=None):
    atoms = molecule("H2O")
    atoms.info.update(info)
    for name, values in (arrays or {}).items():
        atoms.set_array(name, values)
    return atoms


def write(path, *frames):
    ase.io.write(path, frames)
    return path


@pytest.mark.parametrize("suffix", ["xyz", "extxyz", "traj"])
def test_frames_come_back_as_written(tmp_path, suffix):
    rng = np.random.default_rng(0)
    written = [labelled(float(i), rng.normal(size=(3, 3))) for i in range(70)]
    path = write(tmp_path / f"a.{suffix}", *written)
    frames = list(read_frames(path))
    assert len(frames) == 70
    assert frames[69].source == f"{path}: frame 69"
    for atoms, frame in zip(written, frames, strict=True):
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(frame.forces, atoms.calc.results["forces"], atol=1e-8)
        assert frame.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-12)
        assert frame.cell is None


def test_forces_of_constrained_atoms_are_the_raw_ones(tmp_path):
    slab = fcc111("Cu", (2, 2, 2), vacuum=5)
    slab.set_constraint(FixAtoms(range(6)))
    forces = np.random.default_rng(0).normal(size=(8, 3))
    slab.calc = SinglePointCalculator(slab, energy=1.0, forces=forces)
    assert (slab.get_forces()[:6] == 0).all()
    np.testing.assert_array_equal(next(read_frames(write(tmp_path / "a.traj", slab))).forces, forces)


def test_forces_stored_as_zero_on_fixed_atoms_are_refused_unless_accepted(tmp_path):
    atoms = molecule("H2O")
    atoms.set_constraint(FixAtoms([0]))
    forces = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
    path = write(tmp_path / "a.traj", atoms)
    with pytest.raises(DataError, match="frame 0: the stored forces of its 1 fixed atoms are all exactly zero"):
        next(read_frames(path))
    np.testing.assert_array_equal(next(read_frames(path, allow_zeroed_forces=True)).forces, forces)


@pytest.mark.parametrize("pbc", [True, [True, True, False]])
def test_a_flat_cell_is_completed_only_along_axes_that_do_not_repeat(tmp_path, pbc):
    layer = fcc111("Cu", (2, 2, 1), vacuum=None)
    layer.cell[2] = 0
    layer.pbc = pbc
    layer.calc = SinglePointCalculator(layer, energy=1.0, forces=np.zeros((4, 3)))
    path = write(tmp_path / "a.traj", layer)
    if pbc is True:
        with pytest.raises(DataError, match="the cell is singular"):
            next(read_frames(path))
    else:
        frame = next(read_frames(path))
        np.testing.assert_allclose(frame.cell[:2], layer.cell[:2])
        assert frame.volume > 0


def test_stress_keeps_the_sign_of_ase_and_a_virial_is_turned(tmp_path):
    stress = np.array([[1.0, 0.6, 0.5], [0.6, 2.0, 0.4], [0.5, 0.4, 3.0]])
    crystal = bulk("Cu", cubic=True)
    crystal.calc = SinglePointCalculator(crystal, energy=1.0, forces=np.zeros((4, 3)), stress=[1, 2, 3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(next(read_frames(write(tmp_path / "a.xyz", crystal))).stress, stress)
    virial = bulk("Cu", cubic=True)
    virial.info.update(energy=1.0, virial=-stress * virial.get_volume())
    virial.set_array("forces", np.zeros((4, 3)))
    np.testing.assert_allclose(next(read_frames(write(tmp_path / "b.extxyz", virial))).stress, stress)


def test_labels_under_other_usual_names_are_found(tmp_path):
    path = write(tmp_path / "a.xyz", bare({"REF_energy": -3.0}, {"REF_forces": np.full((3, 3), 2.0)}))
    frame = next(read_frames(path))
    assert frame.energy == -3.0
    assert (frame.forces == 2.0).all()


def test_two_different_energies_are_refused_and_a_key_decides(tmp_path):
    path = write(tmp_path / "a.xyz", labelled(-1.0, info={"REF_energy": -3.0}))
    with pytest.raises(
        DataError, match=r"frame 0: 2 different values could be the energy: energy = -1.0, REF_energy = -3.0"
    ):
        next(read_frames(path))
    assert next(read_frames(path, energy_key="REF_energy")).energy == -3.0
    assert next(read_frames(path, energy_key="energy")).energy == -1.0


def test_two_different_forces_are_refused(tmp_path):
    atoms = labelled()
    atoms.set_array("REF_forces", np.zeros((3, 3)))
    path = write(tmp_path / "a.xyz", atoms)
    with pytest.raises(DataError, match="could be the forces"):
        next(read_frames(path))
    assert (next(read_frames(path, forces_key="REF_forces")).forces == 0).all()


def test_free_energy_beside_energy_is_refused_unless_equal(tmp_path):
    assert next(read_frames(write(tmp_path / "a.xyz", labelled(-1.0, free_energy=-1.0)))).energy == -1.0
    with pytest.raises(DataError, match="gradient of the free energy"):
        next(read_frames(write(tmp_path / "b.xyz", labelled(-1.0, free_energy=-1.2))))


def test_a_name_that_changes_between_frames_is_refused(tmp_path):
    forces = {"forces": np.zeros((3, 3))}
    path = write(tmp_path / "a.xyz", bare({"REF_energy": 1.0}, forces), bare({"DFT_energy": 1.0}, forces))
    with pytest.raises(
        DataError, match="frame 1: the energy of earlier frames is called 'REF_energy', here only DFT_energy"
    ):
        list(read_frames(path))


def test_missing_labels_are_errors_that_name_the_frame(tmp_path):
    path = write(tmp_path / "a.xyz", labelled(), bare({"energy": 1.0}))
    with pytest.raises(DataError, match="frame 1: no forces"):
        list(read_frames(path))
    assert [f.forces is None for f in read_frames(path, require=("energy",))] == [False, True]
    with pytest.raises(DataError, match="frame 0: no energy"):
        next(read_frames(path, energy_key="nonsense"))


@pytest.mark.parametrize(
    ("info", "factor"),
    [
        ({"energy_unit": "eV", "forces_unit": "eV/A"}, 1.0),
        ({"energy_unit": "kcal/mol"}, KCAL_PER_MOL),
        ({"energy_unit": "Ha", "forces_unit": "Ha/Å"}, HARTREE),
    ],
)
def test_declared_units_are_used(tmp_path, info, factor):
    path = write(tmp_path / "a.xyz", labelled(-2.0, info=info))
    frame = next(read_frames(path))
    assert frame.energy == pytest.approx(-2.0 * factor)
    np.testing.assert_allclose(frame.forces, factor)


def test_declared_units_are_not_contradicted(tmp_path):
    path = write(tmp_path / "a.xyz", labelled(info={"energy_unit": "Hartree"}))
    with pytest.raises(DataError, match=r"frame 0: the file declares its units as Hartree.*but units='eV, Å'"):
        next(read_frames(path, units="eV"))
    odd = write(tmp_path / "b.xyz", labelled(info={"energy_unit": "zorkmid"}))
    with pytest.raises(DataError, match="energy_unit: unknown unit of energy 'zorkmid'"):
        next(read_frames(odd))


def test_asked_units_convert_a_file_that_declares_none(tmp_path):
    path = write(tmp_path / "a.xyz", labelled(-2.0))
    frame = next(read_frames(path, units="kcal/mol"))
    assert frame.energy == -2.0 * KCAL_PER_MOL
    with pytest.raises(DataError, match="from bohr"):
        next(read_frames(path, units="eV,bohr"))
    assert next(read_frames(path, units="eV,bohr", check_units=False)).energy == -2.0


@pytest.mark.parametrize("suffix", ["db", "json", "aselmdb"])
def test_data_bases_are_read_row_by_row(tmp_path, suffix):
    if suffix == "aselmdb":
        pytest.importorskip("ase_db_backends", reason="the .aselmdb format of ASE data bases needs ase-db-backends")
    path = tmp_path / f"a.{suffix}"
    with ase.db.connect(path) as database:
        for i in range(3):
            database.write(labelled(-1.0 - i), level="made up", number=i)
    frames = list(read_frames(path, None if suffix != "json" else "ase-db"))
    assert [frame.energy for frame in frames] == [-1.0, -2.0, -3.0]
    assert frames[2].source == f"{path}: row 3"


def test_an_energy_among_the_keys_of_a_data_base_is_found(tmp_path):
    path = tmp_path / "a.db"
    with ase.db.connect(path) as database:
        database.write(labelled(-1.0), dft_energy=-7.0)
    with pytest.raises(DataError, match="row 1: 2 different values could be the energy"):
        next(read_frames(path))
    assert next(read_frames(path, energy_key="dft_energy")).energy == -7.0


def test_unreadable_files_are_refused(tmp_path):
    empty, text, cut = tmp_path / "empty.xyz", tmp_path / "a.unknown", tmp_path / "cut.xyz"
    empty.write_bytes(b"")
    text.write_text("what is this\n")
    whole = write(tmp_path / "whole.xyz", labelled(), labelled()).read_text()
    cut.write_text(whole[: int(len(whole) * 0.8)])
    with pytest.raises(DataError, match="is empty"):
        read_frames(empty)
    with pytest.raises(DataError, match="is empty"):
        read_frames(empty, "ase")
    with pytest.raises(DataError, match="unknown format; known formats: rmd17"):
        read_frames(text)
    with pytest.raises(DataError, match="does not exist"):
        read_frames(tmp_path / "nothing.xyz")
    with pytest.raises(DataError, match="unknown format 'xml'"):
        read_frames(text, "xml")
    with pytest.raises(DataError, match="frame 1 has 3 atoms by its first line, the file ends after 2"):
        list(read_frames(cut))
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"SQLite format 3\x00" + b"x" * 50)
    with pytest.raises(DataError, match="data base"):
        list(read_frames(broken))


def test_weights_and_kinds_of_frames_are_read_by_the_names_of_the_field(tmp_path):
    atoms = [labelled(float(i), np.zeros((3, 3))) for i in range(3)]
    atoms[0].info.update(config_weight=0.5, config_type="liquid", weight=18.015)
    atoms[1].info.update(config_type="IsolatedAtom")
    path = write(tmp_path / "a.xyz", *atoms)
    notes = ReadingNotes()
    frames = list(read_frames(path, notes=notes))
    assert [(frame.weight, frame.config_type) for frame in frames] == [(0.5, "liquid"), (1, "IsolatedAtom"), (1, None)]
    assert "weight from config_weight" in lines_about_reading(notes.document())[0]
    assert "not used: weight (1 frames; --weight-key weight would read it)" in lines_about_reading(notes.document())
    assert next(read_frames(path, weight_key="weight")).weight == 18.015
    atoms[2].info["config_weight"] = -1.0
    with pytest.raises(DataError, match=r"frame 2: weight must be a number that is not negative, got -1\.0"):
        list(read_frames(write(tmp_path / "b.xyz", *atoms)))
    atoms[2].info["config_weight"] = "heavy"
    with pytest.raises(DataError, match="frame 2: the weight config_weight must be one number, got str"):
        list(read_frames(write(tmp_path / "c.xyz", *atoms)))
