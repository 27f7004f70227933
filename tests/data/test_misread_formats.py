"""Files that ASE takes for something else are refused with the format named, and LAMMPS's types are no elements."""

import gzip

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from sdas.data import DataError, read_frames
from sdas.data.units import KCAL_PER_MOL

OUTPUTS = {
    "CP2K": " DBCSR| Multiplication driver  BLAS\n CP2K| version string:  CP2K version 2023.1\n ENERGY| Total: -17.1\n",
    "Psi4": "   Psi4: An Open-Source Ab Initio Electronic Structure Package\n   @DF-RKS Final Energy:  -76.406\n",
    "ABACUS": "                 ABACUS v3.5.0\n  !FINAL_ETOT_IS -215.5 eV\n",
    "OpenMX": " Welcome to OpenMX Ver. 3.9\n Utot.   -17.12\n",
}
DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 6
0 6
0 6
ITEM: ATOMS id type {columns}x y z fx fy fz
3 2 {h}0.5 0.6 0 0 0 1
1 1 {o}0 0 0 1 0 0
2 2 {h}0.9 0 0 0 1 0
"""
TYPES_ONLY = DUMP.format(columns="", h="", o="")
WITH_ELEMENTS = DUMP.format(columns="element ", h="H ", o="O ")


@pytest.mark.parametrize("program", OUTPUTS)
@pytest.mark.parametrize("suffix", ["out", "log", "dat", "txt"])
def test_an_output_that_ase_does_not_read_is_named(tmp_path, program, suffix):
    path = tmp_path / f"run.{suffix}"
    path.write_text(OUTPUTS[program])
    with pytest.raises(DataError, match=rf"run\.{suffix}.*an output of {program}, which ASE does not read"):
        list(read_frames(path, require=()))


@pytest.mark.parametrize(
    ("suffix", "guess"), [("out", "espresso-out"), ("log", "gaussian-out"), ("castep", "castep-castep")]
)
def test_a_file_without_frames_says_as_what_it_was_read(tmp_path, suffix, guess):
    path = tmp_path / f"run.{suffix}"
    path.write_text("nothing that anybody knows\n" * 5)
    with pytest.raises(DataError, match=rf"run\.{suffix}.*ASE's format '{guess}', guessed.*--format ase:NAME"):
        list(read_frames(path, require=()))
    with pytest.raises(DataError, match=r"ASE's format 'castep-md', as was asked for"):
        list(read_frames(path, "ase:castep-md", require=()))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_dump_with_types_alone_is_refused_and_read_with_a_type_map(tmp_path, compressed):
    path = tmp_path / ("a.lammpstrj.gz" if compressed else "a.lammpstrj")
    with gzip.open(path, "wt") if compressed else path.open("w") as file:
        file.write(TYPES_ONLY * 2)
    with pytest.raises(DataError, match=r"a\.lammpstrj.*which elements its types are.*--type-map O,H"):
        next(read_frames(path, require=()))
    frames = list(read_frames(path, require=(), type_map="O,H"))
    assert [frame.numbers.tolist() for frame in frames] == [[8, 1, 1]] * 2
    np.testing.assert_array_equal(frames[0].forces, np.eye(3))
    np.testing.assert_allclose(
        next(read_frames(path, require=(), type_map="O,H", units="kcal/mol")).forces, np.eye(3) * KCAL_PER_MOL
    )


def test_a_dump_has_no_energy_and_its_elements_are_not_contradicted(tmp_path):
    path = tmp_path / "a.dump"
    path.write_text(WITH_ELEMENTS)
    frame = next(read_frames(path, require=()))
    assert frame.energy is None
    assert frame.numbers.tolist() == [8, 1, 1]
    assert next(read_frames(path, require=(), type_map="O,H")).numbers.tolist() == [8, 1, 1]
    with pytest.raises(DataError, match="type map C,H contradicts"):
        next(read_frames(path, require=(), type_map="C,H"))
    path.write_text(TYPES_ONLY)
    with pytest.raises(DataError, match="types 1 to 2, where the type map gives the elements of types 1 to 1"):
        next(read_frames(path, require=(), type_map="O"))
    with pytest.raises(DataError, match="'Xx', which is no chemical element"):
        next(read_frames(path, require=(), type_map="O,Xx"))


def test_a_style_of_units_that_lammps_writes_is_used(tmp_path):
    path = tmp_path / "a.dump"
    path.write_text("ITEM: UNITS\nreal\n" + WITH_ELEMENTS)
    np.testing.assert_allclose(
        next(read_frames(path, "ase:lammps-dump-text", require=())).forces, np.eye(3) * KCAL_PER_MOL
    )
    with pytest.raises(DataError, match="declares its units as real, but units='eV, Å'"):
        next(read_frames(path, "ase:lammps-dump-text", require=(), units="eV"))
    path.write_text("ITEM: UNITS\nlj\n" + WITH_ELEMENTS)
    with pytest.raises(DataError, match=r"a\.dump: frame 0: units: unknown unit.*'lj'.*--units"):
        next(read_frames(path, "ase:lammps-dump-text", require=()))


def test_a_data_file_of_lammps_without_masses_is_refused(tmp_path):
    path = tmp_path / "a.lmp"
    ase.io.write(path, bulk("NaCl", "rocksalt", a=5.64), format="lammps-data", masses=True)
    assert sorted(next(read_frames(path, "ase:lammps-data", require=())).numbers) == [11, 17]
    ase.io.write(path, bulk("NaCl", "rocksalt", a=5.64), format="lammps-data", masses=False)
    with pytest.raises(DataError, match="which elements its types are"):
        next(read_frames(path, "ase:lammps-data", require=()))
    numbers = next(read_frames(path, "ase:lammps-data", require=(), type_map="Cl,Na")).numbers
    assert sorted(numbers.tolist()) == [11, 17]


def test_a_bundle_of_ase_is_found_out(tmp_path):
    ase.io.write(tmp_path / "a.bundle", molecule("H2O"), format="bundletrajectory")
    assert len(next(read_frames(tmp_path / "a.bundle", require=()))) == 3
