"""The calculator with the potential itself, small and untrained."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

import sdas_kernels as sk
from sdas.data import Frame
from sdas.errors import SdasError
from sdas.md import MDSettings, Replicas, SDASCalculator, simulate
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
    # vectors between atoms are rounded to float32 here, positions there
    assert methanol.get_potential_energy() == pytest.approx(expected.energy[0], abs=1e-6)
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


@pytest.fixture
def charged(model):
    """A model whose energies depend on charge and spin."""
    torch.manual_seed(2)
    known = sk.nn.SDAS(**model.config, charge_spin=True)
    known.load_state_dict(model.state_dict(), strict=False)
    torch.nn.init.normal_(known.electronic.weight)
    return known.double().eval()


def test_charge_and_spin_are_those_of_the_info(charged, methanol):
    """Of the model on graphs that state them; they change with the info, though no atom moves."""
    methanol.calc = SDASCalculator(charged)
    energies = []
    for info in ({}, {"charge": -1, "spin": 2}, {"total_charge": 2}, {"charge": 0}):
        methanol.info = dict(info)
        state = {"charge": info.get("charge", info.get("total_charge")), "spin": info.get("spin")}
        graph = sk.NeighborGraph.build(methanol.positions, methanol.numbers, 3.5, dtype=torch.float64, **state)
        wanted = charged(graph)
        energies.append(methanol.get_potential_energy())
        assert energies[-1] == pytest.approx(wanted["energy"].item(), rel=1e-12)
        np.testing.assert_allclose(methanol.get_forces(), wanted["forces"].numpy(), atol=1e-12)
    assert energies[0] == energies[3]
    assert len(set(energies)) == 3


def test_dynamics_keep_the_charge_and_write_it(charged, methanol, tmp_path):
    methanol.info = {"charge": 1, "spin": 2, "name": "methanol"}
    settings = MDSettings(steps=4, timestep_fs=0.2, temperature_k=50, sample_every=2)
    simulate(methanol, SDASCalculator(charged), settings, tmp_path / "md")
    frames = ase.io.read(tmp_path / "md" / "trajectory.extxyz", ":")
    assert [(atoms.info["charge"], atoms.info["spin"]) for atoms in frames] == [(1, 2)] * 3
    for atoms in frames:
        again = atoms.copy()
        again.calc = SDASCalculator(charged)
        assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    methanol.info["charge"] = -1
    with pytest.raises(SdasError, match="holds a run that began from another structure"):
        simulate(methanol, SDASCalculator(charged), settings, tmp_path / "md")


def test_states_that_the_model_cannot_know_are_errors(model, methanol):
    calculator = SDASCalculator(sk.nn.SDAS(**model.config, charge_spin=True))
    for info, message in (
        ({"charge": 1}, "the model does not know positive charge"),
        ({"spin": 2}, "the structure: spin 2 is no multiplicity"),
    ):
        methanol.info = info
        with pytest.raises(SdasError, match=message):
            calculator.check(methanol)
    SDASCalculator(model).check(methanol)


def test_replicas_keep_their_own_charges(charged, methanol):
    """Each moves as it would alone, and is given back with its charge."""
    starts = [methanol.copy() for _ in range(3)]
    for atoms, info in zip(starts, ({"charge": 1}, {}, {"charge": -2, "spin": 1}), strict=True):
        atoms.info = info
    replicas = Replicas(charged, starts, temperature_k=100, timestep_fs=0.2, seed=[1, 1, 1])
    replicas.run(3)
    for k, start in enumerate(starts):
        alone = Replicas(charged, [start], temperature_k=100, timestep_fs=0.2, seed=1)
        alone.run(3)
        found, wanted = replicas.atoms(k), alone.atoms(0)
        assert found.info == start.info
        np.testing.assert_allclose(found.positions, wanted.positions, atol=1e-12)
        assert found.get_potential_energy() == pytest.approx(wanted.get_potential_energy(), abs=1e-10)
    assert len({round(replicas.atoms(k).get_potential_energy(), 6) for k in range(3)}) == 3
    starts[1].info = {"spin": 2}
    with pytest.raises(SdasError, match="system 1: spin 2 is no multiplicity"):
        Replicas(charged, starts, temperature_k=100, timestep_fs=0.2)
