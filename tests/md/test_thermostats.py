"""Integrators and thermostats against what is known exactly of harmonic wells and free particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from scipy import integrate, stats

from sdas.errors import SdasError
from sdas.md import Replicas
from sdas.md.forces import EnergyFunction
from sdas.md.thermostats import NVE, Bussi, Langevin, NoseHoover, thermostat_of

MASS = 20.0
OMEGA = 0.05
"""Per fs."""
SPRING = MASS * (OMEGA / units.fs) ** 2
KT = units.kB * 300


def well(systems):
    return SPRING / 2 * systems.sum(systems.positions.square().sum(1))


def nothing(systems):
    return systems.sum(0 * systems.positions.sum(1))


def free_atoms(n, spread=0.0, seed=0):
    positions = np.random.default_rng(seed).normal(0, spread, (n, 3)) if spread else np.zeros((n, 3))
    atoms = Atoms("O" * n, positions=positions)
    atoms.set_masses([MASS] * n)
    return atoms


def test_without_a_thermostat_it_is_the_exact_solution_of_velocity_verlet():
    """x_k = x_0 cos kθ + v_0 dt sin kθ / sin θ with cos θ = 1 − (ω dt)²/2."""
    dt, steps = 4.0, 57
    replicas = Replicas(EnergyFunction(well, False), [free_atoms(2, 0.1)] * 2, timestep_fs=dt, seed=3)
    x, v = replicas.motion.systems.positions.clone(), replicas.motion.velocities.clone() * units.fs
    replicas.run(steps)
    angle = np.arccos(1 - (OMEGA * dt) ** 2 / 2)
    wanted = x * np.cos(steps * angle) + v * dt * np.sin(steps * angle) / np.sin(angle)
    torch.testing.assert_close(replicas.motion.systems.positions, wanted, rtol=0, atol=1e-12)
    assert replicas.time_fs == steps * dt


def test_the_energy_error_falls_with_the_square_of_the_time_step():
    worst = []
    for dt in (2.0, 1.0):
        replicas = Replicas(EnergyFunction(well, False), [free_atoms(5, 0.1)], timestep_fs=dt)
        start, error = replicas.conserved().clone(), []
        replicas.run(int(130 / dt), observe=lambda now, error=error, start=start: error.append(now.conserved() - start))
        worst.append(float(torch.stack(error).abs().max()))
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.05)


def test_langevin_gives_the_exact_positions_and_the_known_error_of_velocities():
    """BAOAB: <x²> = kT/k for every time step; <v²> = kT/m (1 − (ω dt)²/4) at the end of a step."""
    dt = 0.8 / OMEGA
    atoms = free_atoms(1500, np.sqrt(KT / SPRING))
    replicas = Replicas(EnergyFunction(well, False), [atoms], Langevin(20.0), timestep_fs=dt)
    x, v = [], []

    def observe(now):
        x.append(float(now.motion.systems.positions.square().mean()) * SPRING / KT)
        v.append(float(now.motion.velocities.square().mean()) * MASS / KT)

    replicas.run(30)
    replicas.run(400, observe, every=10)
    # 41 samples of 4500 oscillators, of which those 10 steps apart are as good as independent: e^-(γ t) is 0.04
    error = np.sqrt(2 / (41 * 4500))
    assert np.mean(x) == pytest.approx(1, abs=3.5 * error)
    assert np.mean(v) == pytest.approx(1 - 0.8**2 / 4, abs=3.5 * error)
    assert float(replicas.motion.freedom[0]) == 4500


def test_every_replica_has_its_temperature():
    temperatures = [100.0, 300.0, 900.0]
    replicas = Replicas(EnergyFunction(nothing, True), [free_atoms(300, 3.0)] * 3, Langevin(500.0), temperatures)
    means = []
    replicas.run(300, lambda now: means.append(now.temperature()), every=20)
    error = np.sqrt(2 / (900 * 8))
    np.testing.assert_allclose(torch.stack(means[1:]).mean(0), temperatures, rtol=4 * error)


def test_bussi_gives_the_canonical_distribution_of_the_kinetic_energy():
    """Twice the kinetic energy over kT is chi-square distributed, with the momenta taken out of the freedom."""
    atoms = free_atoms(4, 2.0)
    replicas = Replicas(EnergyFunction(nothing, True), [atoms] * 400, Bussi(2.0), timestep_fs=1.0, temperature_k=300)
    assert set(replicas.motion.freedom.tolist()) == {12 - 6}
    kinetic = []
    replicas.run(60, lambda now: kinetic.append(2 * now.kinetic() / KT), every=20)
    for values in kinetic[1:]:
        assert stats.kstest(values.numpy(), stats.chi2(6).cdf).pvalue > 0.01
    momentum = replicas.motion.systems.sum(MASS * replicas.motion.velocities)
    assert float(momentum.abs().max()) < 1e-12


@pytest.mark.parametrize("hot", [0.2, 5.0])
def test_bussi_relaxes_exponentially_in_its_time(hot):
    """<K(t)> − <K> = (K(0) − <K>) exp(−t/τ)."""
    replicas = Replicas(EnergyFunction(nothing, True), [free_atoms(4, 2.0)] * 400, Bussi(50.0), timestep_fs=5.0)
    replicas.motion.scale_velocities((hot * 3 * KT / replicas.kinetic()).sqrt())
    replicas.run(10)
    wanted = 1 + (hot - 1) * np.exp(-1)
    ratio = replicas.kinetic() / (3 * KT)
    assert float(ratio.mean()) == pytest.approx(wanted, abs=3.5 * float(ratio.std()) / 20)


def test_a_chain_of_nose_and_hoover_follows_its_equations_of_motion():
    """Those of Martyna, Klein and Tuckerman (1992), solved by an integrator of high order for one atom in a well."""
    tau, time_fs = 20.0, 300.0
    mass = np.array([3 * KT, KT, KT]) * (tau * units.fs) ** 2

    def slope(_, state):
        x, v, chain = state[:3], state[3:6], state[6:]
        drive = np.array([MASS * v @ v - 3 * KT, mass[0] * chain[0] ** 2 - KT, mass[1] * chain[1] ** 2 - KT]) / mass
        return np.concatenate([v, -SPRING / MASS * x - chain[0] * v, drive - chain * np.append(chain[1:], 0)])

    found = {}
    for dt in (1.0, 0.5):
        replicas = Replicas(EnergyFunction(well, False), [free_atoms(1, 0.2)], NoseHoover(tau), timestep_fs=dt)
        start = (replicas.motion.systems.positions[0].numpy(), replicas.motion.velocities[0].numpy(), np.zeros(3))
        wanted = integrate.solve_ivp(slope, (0, time_fs * units.fs), np.concatenate(start), rtol=1e-10, atol=1e-12)
        replicas.run(int(time_fs / dt))
        motion = replicas.motion
        now = torch.cat([motion.systems.positions[0], motion.velocities[0], motion.own["chain_velocities"][0]])
        found[dt] = np.abs(now.numpy() - wanted.y[:, -1]).max()
    assert found[0.5] < 2e-3
    assert found[1.0] / found[0.5] == pytest.approx(4, rel=0.2)


def test_a_chain_of_nose_and_hoover_holds_the_mean_kinetic_energy():
    """Of atoms that start at rest at the bottom of wells of several frequencies, but for their first velocities."""
    stiff = torch.tensor([0.7, 1.0, 1.6])

    def wells(systems):
        return SPRING / 2 * systems.sum((systems.positions * stiff).square().sum(1))

    replicas = Replicas(EnergyFunction(wells, False), [free_atoms(6)] * 40, NoseHoover(40.0), timestep_fs=2.0)
    start, temperatures = replicas.conserved().clone(), []
    replicas.run(1000, lambda now: temperatures.append(now.temperature()))
    means = torch.stack(temperatures[200:]).mean(0)
    assert float(means.mean()) == pytest.approx(300, abs=3.5 * float(means.std()) / np.sqrt(40))
    assert float(torch.stack(temperatures)[0].mean()) == pytest.approx(300, rel=0.1)
    assert float((replicas.conserved() - start).abs().max()) < 0.02 * 18 * KT


@pytest.mark.parametrize("thermostat", ["nve", "bussi", "nose-hoover"])
def test_momentum_is_conserved(thermostat, pair_potential, molecule):
    replicas = Replicas(pair_potential, [molecule] * 3, thermostat)
    replicas.run(40)
    systems = replicas.motion.systems
    assert float(systems.sum(systems.masses[:, None] * replicas.motion.velocities).abs().max()) < 1e-10
    assert float(replicas.temperature().min()) > 30


def test_names_and_options_are_checked():
    assert thermostat_of("nve") == NVE()
    with pytest.raises(SdasError, match="nve, langevin, bussi, nose-hoover, got 'andersen'"):
        thermostat_of("andersen")
    for make, name in ((Langevin, "friction_per_ps"), (Bussi, "time_fs"), (NoseHoover, "time_fs")):
        with pytest.raises(SdasError, match=f"{make.__name__}: {name} must be positive, got -1"):
            make(-1.0)
