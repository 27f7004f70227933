"""Real data sets of every format come through readers and cache with the numbers that they are known for."""

import ase.io
import numpy as np
import pytest

from sdas.data import DataError, read_frames, write_cache
from sdas.data.consistency import energy_steps
from sdas.data.units import KCAL_PER_MOL

ENERGY_ONLY = {"require": ("energy",)}

# path, options, frames, atoms of the first, energy of the first in eV, periodic axes, has stress
SETS = [
    ("rmd17/rmd17_ethanol_train_01.npz", {}, 1000, 9, -97079.92222179 * KCAL_PER_MOL, 0, False),
    ("rmd17/rmd17_aspirin_test_01.npz", {}, 1000, 21, None, 0, False),
    ("ccsdt/ethanol_ccsd_t-train.npz", {"units": "kcal/mol"}, 1000, 9, -97089.07088252 * KCAL_PER_MOL, 0, False),
    ("slab/AuMgO_test_solid.npz", {"units": "eV"}, 50, 110, -1480152.72052323, 3, False),
    ("slab/oc20_O_on_Rb16.traj", {"energy_key": "energy"}, 47, 17, -17.87281992, 3, False),
    ("slab/oc20_O_on_Rb16.traj", {"energy_key": "free_energy"}, 47, 17, -17.86516003, 3, False),
    ("slab/ch3_cu_final.traj", {"allow_zeroed_forces": True}, 22, 31, None, 2, False),
    ("si/sitraj.xyz", {}, 110, 64, -8324.287843648983, 3, True),
    ("lips/lips_devset.extxyz", {}, 200, 83, -357.05872304, 3, False),
    ("3bpa/train_300K.xyz", {}, 500, 27, -17660.461737861464, 0, False),
    ("3bpa/iso_atoms.xyz", ENERGY_ONLY, 4, 1, -1029.4889999855063, 0, False),
    ("acac/train_300K.xyz", {}, 500, 15, -9391.45554428476, 0, False),
    ("ethanol_dft/test_H_removal.xyz", ENERGY_ONLY, 60, 9, -4205.403516430553, 0, False),
    ("water/deepmd_pbe0/data_0", {}, 80, 192, None, 3, False),
    ("water/deepmd_pbe0", {}, 400, 192, None, 3, False),
    ("mptrj/mptrj-random-1k.xyz", {}, 1000, 9, -28.75765745, 3, True),
]


@pytest.mark.parametrize(("name", "options", "count", "atoms", "energy", "axes", "stress"), SETS)
def test_a_data_set_goes_through_reader_and_cache(
    real_data, tmp_path, same_frame, name, options, count, atoms, energy, axes, stress
):
    frames = list(read_frames(real_data(name), **options))
    assert (len(frames), len(frames[0]), int(frames[0].pbc.sum())) == (count, atoms, axes)
    assert (frames[0].stress is not None) == stress
    if energy is not None:
        assert frames[0].energy == pytest.approx(energy, rel=1e-13)
    cache = write_cache(iter(frames), tmp_path / "c")
    for a, b in zip(cache, frames, strict=True):
        same_frame(a, b)


def test_ccsdt_needs_its_units(real_data):
    with pytest.raises(DataError, match="does not say its units"):
        next(read_frames(real_data("ccsdt/ethanol_ccsd_t-train.npz")))


def test_mptrj_declares_its_units(real_data):
    with pytest.raises(DataError, match="declares its units as eV"):
        next(read_frames(real_data("mptrj/mptrj-random-1k.xyz"), units="kcal/mol"))


def test_oc20_relaxation_has_two_energies(real_data):
    with pytest.raises(DataError, match=r"energy = -17\.87281992, free_energy = -17\.86516003"):
        next(read_frames(real_data("slab/oc20_O_on_Rb16.traj")))


def test_constrained_atoms_keep_their_forces(real_data):
    path = real_data("slab/oc20_O_on_Rb16.traj")
    for atoms, frame in zip(ase.io.iread(path), read_frames(path, energy_key="energy"), strict=True):
        fixed = atoms.constraints[0].index
        assert (atoms.get_forces()[fixed] == 0).all()
        np.testing.assert_array_equal(frame.forces, atoms.get_forces(apply_constraint=False))
        assert np.abs(frame.forces[fixed]).max() > 0


def test_forces_that_were_zeroed_before_they_were_stored_are_noticed(real_data):
    with pytest.raises(DataError, match="frame 0: the stored forces of its 18 fixed atoms are all exactly zero"):
        next(read_frames(real_data("slab/ch3_cu_final.traj")))


def test_relaxations_obey_the_trapezoid_rule_only_with_the_right_sign_and_unit(real_data):
    path = real_data("slab/oc20_O_on_Rb16.traj")
    energy, work = energy_steps(list(read_frames(path, energy_key="free_energy")))
    assert len(energy) > 30
    assert energy @ work / (work @ work) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(DataError, match="what the forces say, as with energies in kcal/mol beside forces in eV/Å"):
        next(read_frames(path, energy_key="energy", units="eV,Å,kcal/mol/Å"))


@pytest.mark.parametrize("name", ["rmd17/rmd17_ethanol_train_01.npz", "si/sitraj.xyz", "mptrj/mptrj-random-1k.xyz"])
def test_real_positions_in_bohr_would_be_noticed(real_data, name):
    energy = "kcal/mol" if name.endswith("npz") else "eV"
    path = real_data(name)
    if name.startswith("mptrj"):
        with pytest.raises(DataError, match="declares its units"):
            next(read_frames(path, units=f"{energy},bohr"))
    else:
        with pytest.raises(DataError, match="converted from bohr while stored in Å"):
            next(read_frames(path, units=f"{energy},bohr"))


def test_the_stress_of_silicon_is_the_strain_derivative_of_its_energy(real_data):
    """The pressure of one frame is positive or negative as ASE says; the tensor is ASE's, unpacked."""
    path = real_data("si/sitraj.xyz")
    for atoms, frame in zip(ase.io.iread(path), read_frames(path), strict=True):
        np.testing.assert_array_equal(frame.stress, atoms.get_stress(voigt=False))
