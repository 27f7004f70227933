"""Volumes at constant pressure, against what is known exactly of an ideal gas and of a spring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk

from sdas.errors import SdasError
from sdas.md import Replicas
from sdas.md.barostats import BAR, Berendsen, StochasticCellRescaling, barostat_of
from sdas.md.forces import EnergyFunction
from sdas.md.lennard_jones import LennardJones
from sdas.md.thermostats import Langevin

KT = units.kB * 300
N = 8
PRESSURE = 2000.0
"""bar; an ideal gas has the compressibility 1 / pressure."""


def gas(volume):
    side = volume ** (1 / 3)
    return Atoms("Ar" * N, scaled_positions=np.random.default_rng(0).random((N, 3)), cell=[side] * 3, pbc=True)


def ideal(systems):
    return systems.sum(0 * systems.positions.sum(1))


def volumes(barostat, forces, atoms, steps, every, replicas=200, timestep_fs=20.0):
    run = Replicas(
        EnergyFunction(forces, True), [atoms] * replicas, Langevin(100.0), barostat=barostat, timestep_fs=timestep_fs
    )
    found = []
    run.run(steps, lambda now: found.append(now.motion.systems.volumes()), every)
    return torch.stack(found[1:]), run


def test_volumes_of_an_ideal_gas_follow_their_distribution():
    """p(V) ∝ V^N exp(−PV/kT): <V> = (N + 1) kT/P, and the variance is (N + 1) (kT/P)²."""
    unit = KT / (PRESSURE * BAR)
    barostat = StochasticCellRescaling(PRESSURE, 800.0, 1 / PRESSURE)
    found, run = volumes(barostat, ideal, gas((N + 1) * unit), 800, 80)
    later = found[2:] / unit
    count = later.numel()  # 80 steps are two relaxation times: samples are nearly independent
    error = float(later.std()) / np.sqrt(count)
    assert float(later.mean()) == pytest.approx(N + 1, abs=3.5 * error)
    assert float(later.var()) == pytest.approx(N + 1, rel=3 * np.sqrt((2 + 6 / (N + 1)) / count))
    assert run.temperature().mean() == pytest.approx(300, rel=0.1)


def test_berendsen_has_the_mean_and_lacks_the_fluctuations():
    unit = KT / (PRESSURE * BAR)
    found, _ = volumes(Berendsen(PRESSURE, 400.0, 1 / PRESSURE), ideal, gas(2 * N * unit), 400, 40, replicas=60)
    later = found[5:] / unit
    assert float(later.mean()) == pytest.approx(N, rel=0.03)
    assert float(later.var()) < 0.5 * N


def test_atoms_and_velocities_are_scaled_with_the_cell():
    barostat = Berendsen(0.0, 1000.0, 1e-4)
    run = Replicas(EnergyFunction(ideal, True), [gas(500.0)], barostat=barostat, timestep_fs=1.0)
    systems, velocities = run.motion.systems, run.motion.velocities.clone()
    before = (systems.positions + 0.5 * units.fs * velocities) @ torch.linalg.inv(systems.cells[0])
    pressure = float(run.pressure())
    assert pressure == pytest.approx(2 * float(run.kinetic()) / (3 * 500.0))
    run.advance()
    growth = 1e-4 / BAR / 1000 * pressure
    assert float(systems.volumes()) == pytest.approx(500 * np.exp(growth), rel=1e-12)
    torch.testing.assert_close(run.motion.velocities, velocities * np.exp(-growth / 3))
    middle = (systems.positions - 0.5 * units.fs * run.motion.velocities) @ torch.linalg.inv(systems.cells[0])
    torch.testing.assert_close(middle, before)


def test_a_solid_takes_the_volume_at_which_its_pressure_is_that_of_the_barostat():
    atoms = bulk("Ar", "fcc", 5.4, cubic=True).repeat(2)
    run = Replicas(
        LennardJones(cutoff=6.5), [atoms] * 2, "bussi", 100.0, barostat=Berendsen(5000.0, 100.0, 1e-5), timestep_fs=10.0
    )
    pressures = []
    run.run(120)
    start = run.motion.systems.volumes().log()
    run.run(100, lambda now: pressures.append(now.pressure() / BAR))
    # the mean of what moves the volume is its whole change
    left = (run.motion.systems.volumes().log() - start) * 100.0 / 1e-5 / 1000
    torch.testing.assert_close(torch.stack(pressures[:-1]).mean(0), 5000 + left, rtol=1e-9, atol=0)
    assert float(left.abs().max()) < 150
    assert float(run.motion.systems.volumes().max()) < 0.97 * atoms.get_volume()


def test_what_cannot_be_is_refused(molecule):
    with pytest.raises(SdasError, match="barostat must be one of cell-rescaling, berendsen, got 'mtk'"):
        barostat_of("mtk")
    assert barostat_of("berendsen", pressure_bar=3.0) == Berendsen(3.0)
    with pytest.raises(SdasError, match="StochasticCellRescaling: time_fs must be positive, got 0"):
        StochasticCellRescaling(1.0, 0.0)
    with pytest.raises(SdasError, match="Berendsen: pressure_bar must be a number, got nan"):
        Berendsen(float("nan"))
    with pytest.raises(SdasError, match="a barostat needs cells that are periodic along all three axes"):
        Replicas(EnergyFunction(ideal, True), [molecule], barostat=Berendsen())
    with pytest.raises(SdasError, match="pressures are known where there is a barostat"):
        Replicas(EnergyFunction(ideal, True), [gas(500.0)]).pressure()
