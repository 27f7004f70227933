"""The calculator with the potential itself, small and untrained."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

import sdas_kernels as sk
from sdas.data import Frame
from sdas.md import MDSettings, SDASCalculator, simulate
from sdas.predict import predict
from sdas.run.checkpoint import save_model

SHIFTS = {1: -13.6, 6: -1030.0, 8: -2042.0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    model = sk.nn.SDAS(species=[1, 6, 8], channels=4, heads=4, lmax=1, layers=2, cutoff=3.5)
    model.set_energy_reference(SHIFTS, scale=0.5)
    return model.eval()


@pytest.fixture
def methanol():
    positions = [[0, 0, 0], [1.42, 0, 0], [1.75, 0.9, 0], [-0.35, 1.0, 0.2], [-0.4, -0.5, 0.9], [-0.4, -0.6, -0.8]]
    return Atoms("COHHHH", positions=positions)


def test_same_numbers_as_the_model(model, methanol):
    no = np.zeros(3, dtype=bool)
    frame = Frame(methanol.numbers.astype(np.int64), methanol.positions, None, no, None, None, None, "methanol")
    expected = predict(model, [frame])
    methanol.calc = SDASCalculator(model, dtype=torch.float32)
    assert methanol.get_potential_energy() == pytest.approx(expected.energy[0], abs=1e-9)
    np.testing.assert_allclose(methanol.get_forces(), expected.forces, atol=1e-6)
    methanol.calc = SDASCalculator(model)
    assert methanol.get_potential_energy() == pytest.approx(expected.energy[0], abs=1e-4)
    np.testing.assert_allclose(methanol.get_forces(), expected.forces, atol=1e-4)


def test_forces_and_stress_by_finite_differences(model, methanol):
    methanol.calc = SDASCalculator(model)
    np.testing.assert_allclose(methanol.get_forces(), calculate_numerical_forces(methanol, eps=1e-4), atol=1e-6)
    methanol.set_cell([[4.5, 0, 0], [0.5, 4.2, 0], [0, 0.4, 4.8]])
    methanol.pbc = True
    slopes = calculate_numerical_stress(methanol, eps=1e-5, voigt=True)
    assert np.abs(slopes).max() > 1e-5
    np.testing.assert_allclose(methanol.get_stress(), slopes, atol=1e-8)


def test_a_model_directory_or_a_run_directory_will_do(model, methanol, tmp_path):
    save_model(tmp_path / "model", model)
    methanol.calc = SDASCalculator(model)
    expected = methanol.get_potential_energy()
    for folder in (tmp_path, str(tmp_path / "model")):
        methanol.calc = SDASCalculator(folder)
        assert methanol.get_potential_energy() == pytest.approx(expected, abs=1e-8)


def test_dynamics_keep_the_energy(model, methanol, tmp_path):
    settings = MDSettings(steps=30, timestep_fs=0.25, sample_every=2, hottest_k=1e6, closest_ang=0.1)
    drift = simulate(methanol, SDASCalculator(model), settings, tmp_path).drift
    assert drift.fluctuation_mev_per_atom < 5
    assert units.fs == pytest.approx(0.0982269, rel=1e-5), "ASE's unit of time is not the femtosecond"
