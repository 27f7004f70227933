"""`units` serves every format: what is stored is read in the units asked for, unless the format fixes its own."""

import pickle

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.data import DataError, read_frames
from sdas.data.units import BOHR, HARTREE, KCAL_PER_MOL

POSITIONS = molecule("H2O").positions + 5.0
FORCES = np.random.default_rng(2).normal(size=(3, 3))
NUMBERS = molecule("H2O").numbers
SYMBOLS = molecule("H2O").symbols
ENERGY, BOX = -2.5, 12.0
VIRIAL = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])


def atoms():
    water = molecule("H2O")
    water.positions = POSITIONS
    water.cell, water.pbc = np.eye(3) * BOX, True
    water.calc = SinglePointCalculator(water, energy=ENERGY, forces=FORCES)
    water.info["virial"] = VIRIAL
    return water


def by_ase(path):
    ase.io.write(path, atoms())


def data_base(path):
    with ase.db.connect(path) as database:
        database.write(atoms(), data={"virial": VIRIAL})


def npz(path):
    arrays = {"z": NUMBERS, "R": POSITIONS[None], "E": np.array([ENERGY]), "F": FORCES[None]}
    np.savez(path, **arrays, unit_cell=np.eye(3) * BOX)


def rmd17(path):
    np.savez(path, nuclear_charges=NUMBERS, coords=POSITIONS[None], energies=np.array([ENERGY]), forces=FORCES[None])


def deepmd(path):
    (path / "set.000").mkdir(parents=True)
    (path / "type.raw").write_text("0 1 1")
    (path / "type_map.raw").write_text("O H")
    arrays = {"coord": POSITIONS, "box": np.eye(3) * BOX, "energy": [ENERGY], "force": FORCES, "virial": VIRIAL}
    for name, values in arrays.items():
        np.save(path / "set.000" / f"{name}.npy", np.asarray(values).reshape(1, -1))


def lmdb(path):
    record = {"pos": POSITIONS, "atomic_numbers": NUMBERS, "cell": np.eye(3) * BOX, "y": ENERGY, "force": FORCES}
    environment = pytest.importorskip("lmdb").open(str(path), subdir=False, map_size=1 << 20)
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", pickle.dumps(record, protocol=4))


def n2p2(path):
    rows = [
        f"atom {' '.join(f'{x:.12f}' for x in r)} {symbol} 0.0 0.0 {' '.join(f'{x:.12f}' for x in f)}"
        for r, f, symbol in zip(POSITIONS, FORCES, SYMBOLS, strict=True)
    ]
    lattice = [f"lattice {' '.join(f'{x:.6f}' for x in row)}" for row in np.eye(3) * BOX]
    path.write_text("\n".join(["begin", "comment made", *lattice, *rows, f"energy {ENERGY}", "charge 0.0", "end", ""]))


WRITERS = {
    "a.xyz": by_ase,
    "a.traj": by_ase,
    "a.db": data_base,
    "a.json": data_base,
    "a.npz": npz,
    "b.npz": rmd17,
    "deepmd": deepmd,
    "a.lmdb": lmdb,
    "input.data": n2p2,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("units", "energy", "length", "force"),
    [
        ("eV", 1.0, 1.0, 1.0),
        ("kcal/mol", KCAL_PER_MOL, 1.0, KCAL_PER_MOL),
        ("Hartree,bohr", HARTREE, BOHR, HARTREE / BOHR),
        ("Ha,Å,Ha/bohr", HARTREE, 1.0, HARTREE / BOHR),
    ],
)
def test_what_is_stored_is_read_in_the_units_asked_for(tmp_path, name, units, energy, length, force):
    path = tmp_path / name
    WRITERS[name](path)
    frame = next(read_frames(path, units=units, check_units=False))
    assert frame.energy == pytest.approx(ENERGY * energy, rel=1e-9)
    np.testing.assert_allclose(frame.positions, POSITIONS * length, rtol=1e-7)
    np.testing.assert_allclose(frame.forces, FORCES * force, atol=1e-7 * force)
    if name != "b.npz":
        np.testing.assert_allclose(frame.cell, np.eye(3) * BOX * length)
    if frame.stress is not None:
        np.testing.assert_allclose(frame.stress, -VIRIAL * energy / (BOX * length) ** 3, rtol=1e-9)
    assert (frame.stress is not None) == (name in ("a.xyz", "a.traj", "a.db", "a.json", "deepmd"))


def test_n2p2_is_in_atomic_units_unless_others_are_asked_for(tmp_path):
    n2p2(tmp_path / "input.data")
    frame = next(read_frames(tmp_path / "input.data", check_units=False))
    assert frame.energy == pytest.approx(ENERGY * HARTREE)
    np.testing.assert_allclose(frame.positions, POSITIONS * BOHR, rtol=1e-7)
    with pytest.raises(DataError, match="converted from bohr while stored in Å"):
        next(read_frames(tmp_path / "input.data"))
    assert next(read_frames(tmp_path / "input.data", units="eV")).energy == ENERGY


@pytest.mark.parametrize("name", ["a.xsf", "POSCAR", "a.castep-md"])
def test_a_format_that_fixes_its_units_contradicts_others(tmp_path, name):
    crystal = bulk("Cu", cubic=True)
    crystal.calc = SinglePointCalculator(crystal, energy=-1.0, forces=np.ones((4, 3)))
    format = {"a.castep-md": "castep-md"}.get(name)
    ase.io.write(tmp_path / name, crystal, format=format)
    asked = None if format is None else f"ase:{format}"
    np.testing.assert_allclose(
        next(read_frames(tmp_path / name, asked, require=())).positions, crystal.positions, atol=1e-6
    )
    assert len(next(read_frames(tmp_path / name, asked, require=(), units="eV"))) == 4
    with pytest.raises(DataError, match=r"declares its units as eV, Å.*units='Ha, bohr'.*ASE's format"):
        next(read_frames(tmp_path / name, asked, require=(), units="Ha,bohr"))
