"""Learning curves whose law is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sdas.scaling.law import Law, fit


@dataclass(frozen=True)
class Truth:
    """E(C) = E∞ + A·C^−α, and what is measured of it: 40 points up to 1e12 FLOPs, the last error near 0.03 eV/Å."""

    alpha: float
    floor: float  # E∞ as a part of the last error
    noise: float = 0.02  # relative
    correlation: float = 0.0  # of the noise of one point with that of the next
    outliers: int = 0  # points half as high again
    transient: int = 0  # first points that are far too high
    decades: float = 1.5
    points: int = 40

    @property
    def last(self) -> float:
        return 1e12

    def error(self, compute):
        return 0.03 * (self.floor + (1 - self.floor) * (compute / self.last) ** -self.alpha)

    def gain(self, compute: float) -> float:
        return self.alpha * (1 - self.floor) * 0.03 * (compute / self.last) ** -self.alpha / compute

    def slope(self, compute: float) -> float:
        return self.gain(compute) * compute / self.error(compute)

    def measured(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        compute = self.last * np.linspace(10**-self.decades, 1, self.points)
        noise = generator.normal(size=self.points)
        for i in range(1, self.points):
            noise[i] = self.correlation * noise[i - 1] + np.sqrt(1 - self.correlation**2) * noise[i]
        error = self.error(compute) * np.exp(self.noise * noise)
        error[generator.choice(self.points, self.outliers, replace=False)] *= 1.5
        error[: self.transient] *= np.linspace(2, 1.3, self.transient)
        return compute, error


TRUTHS = [
    Truth(alpha=0.3, floor=0.3, noise=0.01),
    Truth(alpha=0.3, floor=0.3, noise=0.05),
    Truth(alpha=0.3, floor=0.0),
    Truth(alpha=0.15, floor=0.2),
    Truth(alpha=0.1, floor=0.0, noise=0.03),
    Truth(alpha=0.6, floor=0.5, decades=2.0),
    Truth(alpha=0.4, floor=0.3, correlation=0.5),
    Truth(alpha=0.3, floor=0.3, outliers=4),
    Truth(alpha=0.4, floor=0.3, transient=5),
    Truth(alpha=0.4, floor=0.3, noise=0.03, points=25),
]


@pytest.fixture(scope="session")
def laws() -> list[tuple[Truth, Law]]:
    """200 curves, 20 of every kind, with the laws fitted to them."""
    return [(truth, fit(*truth.measured(seed), seed=seed)) for truth in TRUTHS for seed in range(20)]


@pytest.fixture
def without_floor() -> Truth:
    """A law with E∞ = 0."""
    return Truth(alpha=0.3, floor=0.0)
