"""The density of states by Wang–Landau, of whatever has energies and moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdas.errors import SdasError
from sdas.free_energy.refinement import flatness, refined

Move = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""From states `[B, ...]` to trial states and their energies `[B]`; must be as likely to go back as to go."""
CHECKED_EVERY = 200


@dataclass(frozen=True)
class DensityOfStates:
    """energies [K]: centers of the bins. log_density [K]: ln g up to a constant, NaN where no walker came.

    increment: the last addition to ln g. flatness: of the last histogram. trials: moves that were tried.
    """

    energies: np.ndarray
    log_density: np.ndarray
    increment: float
    flatness: float
    trials: int

    def normalized(self, states: float) -> np.ndarray:
        """ln g `[K]`, such that all bins together hold so many states."""
        largest = np.nanmax(self.log_density)
        total = largest + np.log(np.nansum(np.exp(self.log_density - largest)))
        return self.log_density - total + np.log(states)


def density_of_states(
    states: np.ndarray,
    energies: np.ndarray,
    move: Move,
    edges: np.ndarray,
    *,
    trials: int,
    final: float = 1e-6,
    seed: int = 0,
) -> DensityOfStates:
    """ln g of the energies between the first and the last of `edges`.

    A move is accepted with probability min(1, g(E) / g(E')). Every walker adds to the same g. One that would leave the
    range stays, and counts where it is.

    Args:
        states: [B, ...], of B walkers.
        energies: [B], theirs, within the range.
        move: makes trial states.
        edges: [K + 1], of the bins; a bin holds its lower edge, the last one both.
        trials: of all walkers together, at most.
        final: increment of ln g at which the run ends.
        seed: of moves and acceptance.

    Raises:
        SdasError: a start lies outside the range, the edges do not rise, or no walker ever left its bin.
    """
    generator, count = np.random.default_rng(seed), len(edges) - 1
    if count < 2 or not (np.diff(edges) > 0).all():
        raise SdasError("edges must be those of two bins at least, and rise")
    bins, inside = _bins(np.asarray(energies), edges)
    if not inside.all():
        raise SdasError(
            f"walkers must start between {edges[0]:g} and {edges[-1]:g}, got {np.asarray(energies)[~inside]}"
        )
    states, log_density, histogram = states.copy(), np.zeros(count), np.zeros(count)
    known, increment, late, done, rounds = np.zeros(count, dtype=bool), 1.0, False, 0, 0
    while done < trials and increment > final:
        proposed, their = move(states, generator)
        new, inside = _bins(their, edges)
        with np.errstate(over="ignore"):
            accepted = inside & (generator.random(len(bins)) < np.exp(log_density[bins] - log_density[new]))
        states[accepted], bins = proposed[accepted], np.where(accepted, new, bins)
        np.add.at(log_density, bins, increment)
        np.add.at(histogram, bins, 1.0)
        done, rounds = done + len(bins), rounds + 1
        if rounds % CHECKED_EVERY == 0:
            known |= histogram > 0
            increment, late, anew = refined(increment, late, histogram, known, done)
            if anew:
                histogram[:] = 0
    known |= histogram > 0
    if known.sum() < 2:
        raise SdasError("no walker ever left its bin: make larger moves, or narrower bins")
    values = np.where(known, log_density - log_density[known].max(), np.nan)
    return DensityOfStates((edges[1:] + edges[:-1]) / 2, values, increment, flatness(histogram, known), done)


def _bins(energies: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each energy its bin, the nearest where it lies outside, and whether it lies inside."""
    inside = (energies >= edges[0]) & (energies <= edges[-1])
    return np.clip(np.searchsorted(edges, energies, side="right") - 1, 0, len(edges) - 2), inside
