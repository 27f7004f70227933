"""The bias on its own, and free energies that dynamics with it find where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units

from sdas.errors import SdasError
from sdas.free_energy import Axis, Landscape, WangLandauBias, parse_variable
from sdas.md import Replicas
from sdas.md.forces import EnergyFunction
from sdas.md.systems import Systems
from sdas.md.thermostats import Langevin

KELVIN, BARRIER = 300.0, 3.0
KT = units.kB * KELVIN


def sampled(bias: WangLandauBias, forces: EnergyFunction, atoms: Atoms, steps: int, timestep_fs: float) -> Landscape:
    replicas = Replicas(
        forces,
        [atoms] * (bias.groups * bias.walkers),
        Langevin(20.0),
        KELVIN,
        bias=bias,
        timestep_fs=timestep_fs,
    )

    def visit(now):
        if now.step and now.step % bias.every == 0:
            bias.deposit(now.motion.systems)
            bias.refine()

    replicas.run(steps, visit)
    return Landscape.of(bias)


def apart(found: Landscape, exact: np.ndarray) -> np.ndarray:
    """Off the exact curve."""
    assert found.known.all()
    difference = found.mean - exact
    return np.abs(difference - difference.mean())


def test_forces_are_the_gradient_of_the_energy():
    generator = np.random.default_rng(0)
    atoms = [Atoms("CCOH", generator.uniform(0, 3, (4, 3))) for _ in range(4)]
    systems = Systems.of(atoms)
    axes = [Axis(parse_variable("dihedral:0,1,2,3"), -180, 180, 12), Axis(parse_variable("distance:0,1"), 0.5, 1.5, 8)]
    bias = WangLandauBias(axes, KELVIN, replicas=4, walkers=2)
    for _ in range(3):
        bias.deposit(systems)
    bias.coefficients += torch.from_numpy(generator.normal(0, 0.1, bias.coefficients.shape))
    forces, step = bias(systems)["forces"], 1e-5
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energies = []
        for sign in (1, -1):
            systems.positions[atom, axis] += sign * step
            energies.append(float(bias(systems)["energy"].sum()))
            systems.positions[atom, axis] -= sign * step
        np.testing.assert_allclose(float(forces[atom, axis]), -(energies[0] - energies[1]) / 2 / step, atol=1e-6)


def test_visits_that_are_spread_evenly_leave_no_slope(x_axis):
    """At the walls too, where splines reach out of the range."""
    bias = WangLandauBias([x_axis], KELVIN, replicas=2000, walkers=2000)
    places = np.linspace(-1.4, 1.4, 2001)[:-1] + 0.0007
    bias.deposit(Systems.of([Atoms("H", [[x, 0, 0]]) for x in places]))
    found = bias.free_energies()[0]
    np.testing.assert_allclose(found, found.mean(), rtol=2e-3)


def test_what_a_late_bias_leaves_is_read_from_the_visits(x_axis):
    """Splines are off by noise of 0.5 k_B T; visits of the density that is left tell the harmonic well all the same."""
    bias = WangLandauBias([x_axis], KELVIN, replicas=20_000, walkers=20_000, increment=1e-12)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5 * KT, bias.coefficients.shape))
    bias.coefficients += noise
    bias.late[:] = True
    x = np.linspace(-1.4, 1.4, 200_001)
    values = torch.from_numpy(x)[:, None]
    left = np.exp(-2 * x**2 - bias.energy(values, torch.zeros(len(x), dtype=torch.int64)).numpy() / KT)
    share = np.cumsum(left) / left.sum()
    places = np.interp((np.arange(20_000) + 0.5) / 20_000, share, x)
    bias.deposit(Systems.of([Atoms("H", [[x, 0, 0]]) for x in places]))
    difference = bias.free_energies()[0] / KT - 2 * x_axis.centers**2
    assert np.ptp(difference) < 0.1
    assert np.ptp(noise.numpy()) / KT > 1


def test_groups_do_not_know_of_each_other(x_axis, particle):
    bias = WangLandauBias([x_axis], KELVIN, replicas=4, walkers=2)
    systems = Systems.of([particle] * 4)
    bias.deposit(systems.rows([0, 1]))
    assert bias.visits.sum((1,)).tolist() == [2, 0]
    assert bias(systems)["energy"].tolist() == pytest.approx([float(bias(systems)["energy"][0])] * 2 + [0, 0])
    assert float(bias(systems)["energy"][0]) > 0


def test_a_double_well_has_its_free_energy(well, x_axis, particle):
    bias = WangLandauBias([x_axis], KELVIN, replicas=256, walkers=128, increment=0.02, every=4, invariant=False)
    found = sampled(bias, well, particle, steps=1400, timestep_fs=4.0)
    exact = BARRIER * (found.centers[0] ** 2 - 1) ** 2
    assert apart(found, exact).max() < 0.1
    assert found.error is not None
    assert found.error.mean() < 0.05


def test_a_double_well_in_two_variables_has_its_free_energy(well, x_axis, y_axis, particle):
    axes = [Axis(x_axis.variable, -1.4, 1.4, 14), y_axis]
    bias = WangLandauBias(axes, KELVIN, replicas=256, walkers=256, increment=0.05, every=4, invariant=False)
    found = sampled(bias, well, particle, steps=800, timestep_fs=4.0)
    x, y = np.meshgrid(*found.centers, indexing="ij")
    exact = BARRIER * (x**2 - 1) ** 2 + 2.5 * (y - x / 2) ** 2
    likely = exact < 4
    difference = (found.mean - exact)[likely]
    assert np.abs(difference - difference.mean()).mean() < 0.1


def test_an_angle_has_the_free_energy_of_the_quadrature():
    """Stiff bonds, a spring on the angle θ: p(θ) ∝ sin θ exp(−k (θ − θ0)² / 2 k_B T), averaged over each bin."""
    angle, spring, rest = parse_variable("angle:0,1,2"), 4.0, np.pi / 2

    def energy(systems):
        positions = systems.positions.reshape(-1, 3, 3)
        a, b = positions[:, 0] - positions[:, 1], positions[:, 2] - positions[:, 1]
        stretch = (a.norm(dim=1) - 1) ** 2 + (b.norm(dim=1) - 1) ** 2
        return KT * (spring / 2 * (torch.deg2rad(angle(systems)) - rest) ** 2 + 60 * stretch)

    bias = WangLandauBias([Axis(angle, 40, 140, 16)], KELVIN, replicas=256, walkers=256, increment=0.02, every=4)
    rotor = Atoms("O3", [[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]])
    found = sampled(bias, EnergyFunction(energy, invariant=True), rotor, steps=1100, timestep_fs=5.0)
    theta = np.deg2rad(40 + 100 * (np.arange(1600) + 0.5) / 1600)
    weight = np.sin(theta) * np.exp(-spring / 2 * (theta - rest) ** 2)
    assert apart(found, -np.log(weight.reshape(16, 100).mean(axis=1))).max() < 0.1


def test_groups_and_stress_are_checked(x_axis, particle):
    with pytest.raises(SdasError, match="4 replicas cannot be shared out in groups of 3"):
        WangLandauBias([x_axis], KELVIN, replicas=4, walkers=3)
    with pytest.raises(SdasError, match="no stress of a bias is known"):
        WangLandauBias([x_axis], KELVIN, replicas=1)(Systems.of([particle]), stress=True)
