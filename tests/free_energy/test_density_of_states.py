"""Wang–Landau over energy where the density of states is known."""

from __future__ import annotations

import numpy as np
import pytest

from sdas.errors import SdasError
from sdas.free_energy import density_of_states

SIDE = 4
LEVELS = np.arange(-32, 33, 4)


def ising(spins: np.ndarray) -> np.ndarray:
    """−Σ s s' over neighbors on a torus, of spins [B, 4, 4]."""
    return -(spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))).sum((1, 2))


def flip(spins: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    trial = spins.copy()
    rows = np.arange(len(spins))
    trial[rows, generator.integers(SIDE, size=len(rows)), generator.integers(SIDE, size=len(rows))] *= -1
    return trial, ising(trial)


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """ln g of every level, by counting all 65536 states; those at ±28 do not exist."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    energies = ising((2 * bits - 1).reshape(-1, SIDE, SIDE))
    counts = np.array([(energies == level).sum() for level in LEVELS])
    return np.where(counts > 0, np.log(np.maximum(counts, 1)), np.nan)


def test_ising_has_its_density_of_states(exact):
    spins = np.random.default_rng(0).choice([-1, 1], size=(96, SIDE, SIDE))
    found = density_of_states(spins, ising(spins), flip, np.append(LEVELS - 2, 34), trials=1_200_000, seed=1)
    log_density = found.normalized(2.0**16)
    assert np.array_equal(np.isnan(log_density), np.isnan(exact)), "levels that are empty"
    relative = np.abs(log_density / exact - 1)
    assert np.nanmean(relative) < 0.01
    assert np.nanmax(np.abs(log_density - exact)) < 0.01 * np.log(2.0**16)


def test_a_harmonic_well_has_a_power_law():
    """In n dimensions the volume below E goes like E^(n/2), so a bin from a to b holds b^(n/2) − a^(n/2)."""
    n, edges = 5, np.linspace(0, 4, 17)
    start = np.random.default_rng(0).normal(0, 0.3, (200, n))

    def move(points, generator):
        trial = points + generator.uniform(-0.7, 0.7, points.shape)
        return trial, (trial**2).sum(1) / 2

    energies = (start**2).sum(1) / 2
    found = density_of_states(start, energies, move, edges, trials=800_000, seed=2)
    exact = np.log(np.diff(edges ** (n / 2)))
    apart = found.log_density - exact
    assert np.abs(apart - apart.mean())[1:].max() < 0.1
    assert found.flatness > 0.5


def test_flatwalk_finds_the_same():
    """Of the same energies and moves."""
    flatwalk = pytest.importorskip("flatwalk", reason="FLATWALK ABSENT: the density of states is not compared with it")
    spins = np.random.default_rng(0).choice([-1, 1], size=(96, SIDE, SIDE))

    def propose(states, generator):
        return flip(states, generator)[0], np.zeros(len(states))

    config = flatwalk.WLConfig(bin_scheme=flatwalk.Bin1D(-34, 34, 17), n_check=9600)
    theirs = flatwalk.WLDriver(config).run_batched(
        spins.copy(), ising, ising, propose, 96, max_trials=300_000, rng=np.random.default_rng(3)
    )
    ours = density_of_states(spins, ising(spins), flip, np.append(LEVELS - 2, 34), trials=300_000, seed=4)
    known = np.isfinite(ours.log_density)
    assert np.array_equal(known, theirs.visited)
    apart = (ours.log_density - theirs.g)[known]
    assert np.abs(apart - apart.mean()).max() < 0.25


def test_what_cannot_be_sampled_is_said():
    start = np.zeros((2, 1))
    with pytest.raises(SdasError, match="walkers must start between 1 and 3"):
        density_of_states(start, np.zeros(2), lambda x, g: (x, np.zeros(2)), np.array([1.0, 2.0, 3.0]), trials=10)
    with pytest.raises(SdasError, match="no walker ever left its bin"):
        density_of_states(start, np.zeros(2), lambda x, g: (x, np.zeros(2)), np.array([0.0, 1.0, 2.0]), trials=10)
