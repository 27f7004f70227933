"""Positions in the wrong unit and forces that do not fit the energies are noticed; right ones never are."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from sdas.data import DataError, Frame
from sdas.data.consistency import check_energy_and_forces, energy_steps
from sdas.data.plausibility import check_length_unit, nearest_neighbors
from sdas.data.units import BOHR, KCAL_PER_MOL


def frame_of(atoms, scale=1.0):
    cell = atoms.cell.array * scale if atoms.pbc.any() else None
    numbers = atoms.numbers.astype(np.int64)
    return Frame(numbers, atoms.positions * scale, cell, atoms.pbc, None, None, None, "made: frame 0")


STRUCTURES = {
    "water": molecule("H2O"),
    "benzene": molecule("C6H6"),
    "silicon, two atoms": bulk("Si"),
    "copper, one atom": bulk("Cu"),
    "salt": bulk("NaCl", "rocksalt", a=5.64),
    "cesium": bulk("Cs"),
    "iron hydride": bulk("FeH", "rocksalt", a=3.4),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize(
    ("scale", "guess"), [(1.0, None), (1 / BOHR, "ENERGY,bohr"), (0.1, "ENERGY,nm"), (BOHR, "from bohr")]
)
def test_wrong_length_units_are_noticed(name, scale, guess):
    frames = [frame_of(STRUCTURES[name], scale)]
    if guess is None:
        check_length_unit(frames, "made")
        return
    with pytest.raises(DataError, match=rf"made: the median distance.*{guess}"):
        check_length_unit(frames, "made")


def test_nothing_is_concluded_from_single_atoms_and_noble_gases():
    check_length_unit([frame_of(molecule("H"))], "made")
    check_length_unit([frame_of(bulk("Ar"))], "made")


def test_nearest_neighbors_are_found_through_the_cell():
    atoms = bulk("Si", cubic=True)
    atoms.positions += 100 * atoms.cell[0]
    distances, ratios = nearest_neighbors(frame_of(atoms))
    np.testing.assert_allclose(distances, 5.43 * np.sqrt(3) / 4, rtol=1e-9)
    assert ratios == pytest.approx(distances / 2.22)


def trajectory(energy_scale=1.0, force_scale=1.0, frames=12):
    """A particle pair on a harmonic spring of 5 eV/Å², moved in steps of 0.05 Å."""
    made = []
    for i in range(frames):
        stretch = -0.25 + 0.05 * i
        force = 5.0 * stretch
        forces = np.array([[force, 0, 0], [-force, 0, 0]])
        positions = np.array([[0.0, 0, 0], [1.1 + stretch, 0, 0]])
        energy = 2.5 * stretch**2 - 400.0
        numbers = np.array([7, 7])
        pbc = np.zeros(3, dtype=bool)
        made.append(Frame(numbers, positions, None, pbc, energy * energy_scale, forces * force_scale, None, f"t: {i}"))
    return made


def test_consistent_labels_pass_and_the_trapezoid_rule_is_exact_on_a_spring():
    energy, work = energy_steps(trajectory())
    np.testing.assert_allclose(energy, work, atol=1e-10)
    check_energy_and_forces(trajectory(), "t")


@pytest.mark.parametrize(
    ("energy_scale", "force_scale", "cause"),
    [
        (1.0, -1.0, "sign of forces reversed"),
        (1 / KCAL_PER_MOL, 1.0, "energies in kcal/mol beside forces in eV/Å"),
        (1.0, 1 / KCAL_PER_MOL, "forces in kcal/mol/Å beside energies in eV"),
        (1.0, BOHR, "force per bohr"),
    ],
)
def test_inconsistent_labels_are_noticed(energy_scale, force_scale, cause):
    with pytest.raises(DataError, match=cause):
        check_energy_and_forces(trajectory(energy_scale, force_scale), "t")


def test_nothing_is_concluded_from_few_steps_or_from_far_frames():
    check_energy_and_forces(trajectory(force_scale=-1.0, frames=4), "t")
    check_energy_and_forces(trajectory(force_scale=-1.0, frames=40)[::6], "t")


def test_nothing_is_concluded_from_noise():
    rng = np.random.default_rng(0)
    noisy = [
        Frame(f.numbers, f.positions, None, f.pbc, float(rng.normal()), f.forces, None, f.source) for f in trajectory()
    ]
    check_energy_and_forces(noisy, "t")
