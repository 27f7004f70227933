"""Constants of walks that are known: a random walk, and particles with friction (Ornstein and Uhlenbeck)."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from sdas.diffusion import diffusion
from sdas.diffusion.displacements import mean_squared_displacement
from sdas.errors import SdasError

pytest.importorskip("kinisi", reason="KINISI ABSENT: pip install .[md]; no diffusion constant is tested")


def test_a_random_walk_has_its_constant(walk, paths_of):
    """About their center of mass, n independent walkers have D (1 - 1/n)."""
    found = diffusion([paths_of(walk(d=0.3, atoms=100, seed=1))], "Ar")
    low, high = found.interval
    assert low < 0.3 * 0.99 < high
    assert high - low < 0.15 * 0.3
    assert found.start_fs == 100.0


def test_particles_with_friction_are_read_where_they_diffuse(paths_of):
    """Velocities forget themselves after 400 fs; D = k_B T / (m γ), from displacements beyond that alone."""
    generator, frames, atoms, interval, memory = np.random.default_rng(3), 1200, 60, 50.0, 400.0
    kept = np.exp(-interval / 5 / memory)
    speed = np.sqrt(units.kB * 300 / 40.0) / (1 / units.fs)  # Å/fs
    velocity, position = generator.normal(0, speed, (atoms, 3)), np.zeros((atoms, 3))
    positions = np.empty((frames, atoms, 3))
    for frame in range(frames):
        for _ in range(5):
            before = velocity
            velocity = kept * velocity + np.sqrt(1 - kept**2) * generator.normal(0, speed, (atoms, 3))
            position = position + (before + velocity) / 2 * interval / 5
        positions[frame] = position
    exact = speed**2 * memory * 1000 * (1 - 1 / atoms)  # Å²/ps
    found = diffusion([paths_of(positions, interval)], "Ar")
    low, high = found.interval
    assert low < exact < high
    assert high - low < 0.4 * exact
    assert found.start_fs > memory


def test_the_displacement_is_its_formula(walk, paths_of):
    paths = [paths_of(walk(frames=30, atoms=5, seed=seed)) for seed in (1, 2)]
    found = mean_squared_displacement(paths, np.arange(5) > 1, np.array([1, 7]))
    for row, lag in enumerate((1, 7)):
        squares = [
            ((each.positions[t + lag, atom] - each.positions[t, atom]) ** 2).sum()
            for each in paths
            for t in range(30 - lag)
            for atom in (2, 3, 4)
        ]
        independent = 2 * 3 * 29 / lag
        np.testing.assert_allclose(found.mean[row], np.mean(squares), rtol=1e-12)
        np.testing.assert_allclose(found.variance[row], np.var(squares, ddof=1) / independent, rtol=1e-12)


def test_drift_of_the_whole_does_not_count(walk, paths_of):
    still = walk(frames=30, atoms=8)
    drifting = still + np.arange(30)[:, None, None] * np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(paths_of(drifting).positions, paths_of(still).positions, atol=1e-9)


def test_a_crystal_does_not_diffuse(paths_of):
    sites = np.random.default_rng(0).uniform(0, 12, (20, 3)) + 0.1 * np.random.default_rng(1).normal(size=(200, 20, 3))
    with pytest.raises(SdasError, match=r"does not become linear .* to the power -?0\.0\d.*do not diffuse"):
        diffusion([paths_of(sites)], "Ar")


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (12, {}, "12 frames are too few; wants 20"),
        (40, {"start_fs": 2000.0}, "within a quarter of 3900 fs, got 2000 fs"),
        (40, {"element": "Xq"}, "holds no Xq; there are: Ar"),
    ],
)
def test_what_cannot_be_measured_is_said(walk, paths_of, frames, options, message):
    with pytest.raises(SdasError, match=message):
        diffusion([paths_of(walk(frames=frames))], options.pop("element", "Ar"), **options)


def test_a_trajectory_of_few_times_the_start_is_too_short(paths_of):
    """Straight paths that turn every 0.9 ps are linear late."""
    turns = np.repeat(np.random.default_rng(5).normal(0, 0.05, (25, 200, 3)), 9, axis=0)
    with pytest.raises(SdasError, match=r"too short: displacements of Ar atoms are linear from .* wants 10 times"):
        diffusion([paths_of(np.cumsum(turns, axis=0))], "Ar")
