"""Energies of elements and the unit of learning are those that made the frames, or what is known of them is said."""

from __future__ import annotations

import numpy as np
import pytest

from sdas.data import Frame
from sdas.errors import TrainingError
from sdas.train.energy_reference import fit_energy_reference, given_energy_reference


def frame(numbers, energy, force=1.0):
    z = np.array(numbers, dtype=np.int64)
    positions = np.arange(3.0 * len(z)).reshape(-1, 3)
    forces = None if force is None else np.full((len(z), 3), force)
    return Frame(z, positions, None, np.zeros(3, bool), energy, forces, None, "made")


def test_the_fit_finds_the_energies_that_made_the_frames():
    frames = [frame(z, -2.0 * z.count(1) - 30.0 * z.count(8)) for z in ([1, 1, 8], [1, 8], [8, 8], [1, 1])]
    reference = fit_energy_reference(frames, [1, 8])
    assert reference.shifts == pytest.approx({1: -2.0, 8: -30.0})
    assert (reference.undetermined, reference.energy_rms) == ((), 0.0)
    assert reference.force_rms == reference.unit == pytest.approx(1.0)


def test_the_fit_is_exact_for_89_elements_of_which_many_are_rare():
    """Energies of all-electron size; 30 elements occur in one frame each, as one atom among up to 200."""
    rng = np.random.default_rng(0)
    shifts = {z: -10.0 * z**2.3 for z in range(1, 90)}
    frames = [rng.integers(1, 60, size=rng.integers(2, 200)).tolist() for _ in range(300)]
    for index, rare in enumerate(range(60, 90)):
        frames[index][0] = rare
    frames = [frame(numbers, sum(shifts[z] for z in numbers)) for numbers in frames]
    reference = fit_energy_reference(frames, shifts)
    assert reference.undetermined == ()
    assert [reference.shifts[z] for z in shifts] == pytest.approx(list(shifts.values()), rel=1e-9)


def test_a_large_cell_counts_as_much_as_a_small_one():
    """Least squares of energies per atom, by the normal equations of two elements in float64."""
    rng = np.random.default_rng(1)
    cells = [[1] * a + [8] * b for a, b in ((1, 1), (40, 20), (3, 1), (2, 7), (90, 90), (1, 5))]
    energies = [len(z) * (-7.0 + rng.normal()) for z in cells]
    a = np.array([[z.count(1) / len(z), z.count(8) / len(z)] for z in cells])
    e = np.array([energy / len(z) for energy, z in zip(energies, cells, strict=True)])
    expected = np.linalg.solve(a.T @ a, a.T @ e)
    rest = e - a @ expected
    reference = fit_energy_reference(map(frame, cells, energies), [1, 8])
    assert [reference.shifts[1], reference.shifts[8]] == pytest.approx(expected.tolist())
    assert reference.energy_mean == pytest.approx(rest.mean())
    assert reference.energy_rms == pytest.approx(rest.std())


def test_what_compositions_leave_open_is_nearest_to_the_mean_energy_per_atom():
    one = fit_energy_reference([frame([1, 1, 8], -50.0), frame([8, 1, 1], -49.0)], [1, 8, 9])
    assert one.shifts == pytest.approx({1: -16.5, 8: -16.5, 9: -16.5})
    assert one.undetermined == (1, 8)
    # C is alone in the second frame, so only H and O are open: they share what is left
    two = fit_energy_reference([frame([1, 1, 8], -60.0), frame([6, 6], -80.0)], [1, 6, 8])
    assert (two.shifts[6], two.undetermined) == (pytest.approx(-40.0), (1, 8))
    assert 2 * two.shifts[1] + two.shifts[8] == pytest.approx(-60.0)
    mean = -30.0
    away = [two.shifts[1] - mean, two.shifts[8] - mean]
    assert np.cross([*away, 0], [2, 1, 0]).tolist() == pytest.approx([0, 0, 0])  # nothing along the open direction


def test_without_forces_energies_per_atom_give_the_unit():
    """Cells of one atom by symmetry have zero forces."""
    energies = [-5.0, -5.2, -5.4]
    zero = fit_energy_reference([frame([14], energy, force=0.0) for energy in energies], [14])
    none = fit_energy_reference([frame([14], energy, force=None) for energy in energies], [14])
    assert (zero.force_rms, none.force_rms) == (None, None)
    assert zero.unit == none.unit == pytest.approx(np.std(energies))


def test_frames_without_energies_leave_the_shifts_at_zero():
    reference = fit_energy_reference([frame([1, 8], None, force=2.0)], [1, 8])
    assert (reference.shifts, reference.energy_rms, reference.unit) == ({1: 0.0, 8: 0.0}, None, pytest.approx(2.0))


def test_given_energies_leave_the_binding_energy_to_be_learnt():
    frames = [frame([1, 1], -31.0), frame([1, 8], -88.0)]
    reference = given_energy_reference(frames, [1, 8], {1: -13.0, 8: -70.0, 9: -99.0}, "here")
    assert reference.shifts == {1: -13.0, 8: -70.0}
    assert (reference.energy_mean, reference.energy_rms) == (pytest.approx(-2.5), 0.0)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(TrainingError, match=r"atomic numbers \[8\] are not in model.species \[1\]"):
        fit_energy_reference([frame([1, 8], -1.0)], [1])
    with pytest.raises(TrainingError, match="no scale to learn by"):
        _ = fit_energy_reference([frame([1, 1], -1.0, force=0.0)], [1]).unit
    with pytest.raises(TrainingError, match=r"refs.json: no energy of O, which"):
        given_energy_reference([frame([1, 8], -1.0)], [1, 8], {1: -13.0}, "refs.json")
