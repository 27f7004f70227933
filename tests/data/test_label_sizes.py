"""Forces and stresses far too large for eV/Å and eV/Å³ are refused, with the unit that would fit; real ones pass."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.data import DataError, read_frames, write_cache
from sdas.data.label_sizes import check_force_unit, check_stress_unit
from sdas.data.units import GPA, KCAL_PER_MOL


def crystal(pressure_gpa, unit=1.0, frames=8):
    """Copper under a pressure, its stress stored in units of ``unit`` eV/Å³."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(frames):
        atoms = bulk("Cu", cubic=True)
        stress = -pressure_gpa * GPA * np.array([1, 1.05, 0.95, 0.05, -0.02, 0.01]) * rng.uniform(0.9, 1.1)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=rng.normal(size=(4, 3)), stress=stress / unit)
        made.append(atoms)
    return made


def written(path, frames):
    ase.io.write(path, frames)
    return path


def test_stresses_in_bar_and_kbar_are_refused_with_what_would_fit(tmp_path):
    bar = written(tmp_path / "bar.xyz", crystal(3.2125, 1e-4 * GPA))
    with pytest.raises(DataError, match=r"bar\.xyz: the stresses.* eV/Å³ large.*units='eV,Å,eV/Å,bar'.*-kbar"):
        next(read_frames(bar))
    kbar = written(tmp_path / "kbar.xyz", crystal(30, 0.1 * GPA))
    with pytest.raises(DataError, match="units='eV,Å,eV/Å,kbar'"):
        next(read_frames(kbar))
    frame = next(read_frames(bar, units="eV,Å,eV/Å,bar"))
    assert frame.stress[0, 0] == pytest.approx(-3.2125 * GPA, rel=0.2)
    turned = next(read_frames(bar, units="eV,Å,eV/Å,-bar"))
    np.testing.assert_array_equal(turned.stress, -frame.stress)
    assert next(read_frames(bar, check_units=False)).stress[0, 0] < -20000


@pytest.mark.parametrize("pressure", [0.001, 1, 100])
def test_stresses_of_matter_pass(tmp_path, pressure):
    assert len(list(read_frames(written(tmp_path / "a.xyz", crystal(pressure))))) == 8


def test_forces_in_kcal_per_mol_are_refused_with_what_would_fit(tmp_path):
    frames = []
    for seed in range(8):
        atoms = molecule("CH3CH2OH")
        forces = 1.2 * np.random.default_rng(seed).normal(size=(len(atoms), 3)) / KCAL_PER_MOL
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
        frames.append(atoms)
    path = written(tmp_path / "a.xyz", frames)
    with pytest.raises(DataError, match=r"root mean square of the forces is 2.* eV/Å.*units='kcal/mol'"):
        next(read_frames(path))
    assert next(read_frames(path, units="kcal/mol")).forces.std() == pytest.approx(1.2, rel=0.3)


def test_a_single_structure_may_be_far_from_rest(tmp_path):
    assert len(list(read_frames(written(tmp_path / "one.xyz", crystal(300, frames=1))))) == 1
    with pytest.raises(DataError, match="beyond what matter bears"):
        next(read_frames(written(tmp_path / "bar.xyz", crystal(3.2125, 1e-4 * GPA, frames=1))))


def test_nothing_is_concluded_without_labels(water):
    check_force_unit([water(forces=None)], "made")
    check_stress_unit([water()], "made")


@pytest.mark.parametrize("name", ["si/sitraj.xyz", "mptrj/mptrj-random-1k.xyz", "rmd17/rmd17_aspirin_train_01.npz"])
def test_real_sets_pass(real_data, name):
    frames = list(read_frames(real_data(name)))
    check_force_unit(frames, name)
    check_stress_unit(frames, name)


def test_a_cache_was_checked_when_it_was_made(tmp_path):
    path = written(tmp_path / "a.xyz", crystal(3.2125, 1e-4 * GPA))
    cache = write_cache(read_frames(path, check_units=False), tmp_path / "c")
    assert len(list(read_frames(cache.path))) == 8
