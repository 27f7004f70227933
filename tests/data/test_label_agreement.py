"""Labels under two names that agree after conversion are one label; those that differ by more than rounding are not."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.data import DataError, read_frames
from sdas.data.units import GPA, KCAL_PER_MOL

STRESS = np.array([[0.01, 0.001, 0.002], [0.001, -0.02, 0.003], [0.002, 0.003, 0.03]])
VOIGT = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
FORCES = np.random.default_rng(5).normal(size=(4, 3))
VOLUME = bulk("Cu", cubic=True).get_volume()


def frame_of(path, info=(), arrays=(), **results):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, **{"energy": -4209.123456789, "forces": FORCES, **results})
    atoms.info.update(info)
    for name, values in dict(arrays).items():
        atoms.set_array(name, values)
    ase.io.write(path, atoms)
    return next(read_frames(path))


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_voigt_agrees_with_nine_numbers(tmp_path, suffix):
    for other in (STRESS, STRESS.ravel(), VOIGT):
        frame = frame_of(tmp_path / f"a.{suffix}", {"REF_stress": other}, stress=VOIGT)
        np.testing.assert_allclose(frame.stress, STRESS, atol=1e-12)


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_a_stress_agrees_with_a_virial_over_minus_the_volume(tmp_path, suffix):
    for virial in (-STRESS * VOLUME, -VOIGT * VOLUME, np.round(-STRESS * VOLUME, 4)):
        frame = frame_of(tmp_path / f"a.{suffix}", {"REF_virial": virial}, stress=VOIGT)
        np.testing.assert_allclose(frame.stress, STRESS, atol=1e-12)
    with pytest.raises(DataError, match=r"different values could be the stress: stress = .*virial = .*--stress-key"):
        frame_of(tmp_path / f"b.{suffix}", {"virial": STRESS * VOLUME}, stress=VOIGT)


@pytest.mark.parametrize("text", ['stress="{}"', "virial='{}'", "Stress=[{}]", 'REF_virial="{}"'])
def test_six_numbers_of_extended_xyz_are_in_the_order_of_voigt(tmp_path, text):
    ase.io.write(tmp_path / "a.xyz", bulk("Cu", cubic=True))
    lines = (tmp_path / "a.xyz").read_text().splitlines()
    numbers = VOIGT if "tress" in text else -VOIGT * VOLUME
    separator = ", " if "[" in text else " "
    lines[1] += " " + text.format(separator.join(f"{x:.12g}" for x in numbers))
    (tmp_path / "a.xyz").write_text("\n".join(lines))
    np.testing.assert_allclose(next(read_frames(tmp_path / "a.xyz", require=())).stress, STRESS, atol=1e-12)


def test_values_are_compared_in_one_unit(tmp_path):
    info = {"stress_unit": "GPa", "virial": -STRESS * VOLUME}
    np.testing.assert_allclose(frame_of(tmp_path / "a.xyz", info, stress=VOIGT / GPA).stress, STRESS)
    info = {"stress_unit": "GPa", "energy_unit": "kcal/mol", "virial": -STRESS * VOLUME / KCAL_PER_MOL}
    np.testing.assert_allclose(frame_of(tmp_path / "b.xyz", info, stress=VOIGT / GPA).stress, STRESS)


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_a_free_energy_a_micro_electronvolt_away_is_the_energy(tmp_path, suffix):
    energy = -4209.123456789
    assert frame_of(tmp_path / f"a.{suffix}", free_energy=energy + 1e-6).energy == energy
    assert frame_of(tmp_path / f"b.{suffix}", {"REF_energy": energy - 1e-6}).energy == energy
    with pytest.raises(DataError, match="gradient of the free energy"):
        frame_of(tmp_path / f"c.{suffix}", free_energy=energy + 2e-3)


def test_rounding_to_float32_and_to_printed_digits_is_no_difference(tmp_path):
    rounded = {"DFT_energy": float(np.float32(-4209.123456789))}
    frame = frame_of(tmp_path / "a.xyz", rounded, {"REF_forces": FORCES.astype(np.float32).astype(float)})
    assert frame.energy == -4209.123456789
    np.testing.assert_allclose(frame.forces, FORCES, atol=1e-8)
    np.testing.assert_allclose(
        frame_of(tmp_path / "b.xyz", {}, {"dft_force": FORCES.round(4)}).forces, FORCES, atol=1e-8
    )


@pytest.mark.parametrize("name", ["REF_forces", "dft_force"])
def test_forces_a_milli_electronvolt_apart_are_two(tmp_path, name):
    with pytest.raises(DataError, match=rf"could be the forces: forces = .*{name} = .*--forces-key"):
        frame_of(tmp_path / "a.xyz", {}, {name: FORCES + np.array([1e-3, 0, 0])})
