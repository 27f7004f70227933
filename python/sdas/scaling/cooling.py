"""What a cool-down brings, beyond the law of the curve at a constant rate: the multi-power law.

    E(C) = E∞ + A·S^−α − B·∫ G(η(c)^−γ S_c) dη        G(x) = 1 − (1 + κx)^−β

η is the rate over that before the cool-down, so it falls from 1. S counts FLOPs times their rate: S since the start,
and S_c since the rate was η(c). The integral runs over the rates that were passed. So E∞, A and α are those of the law
at a constant rate, and each fall of the rate lowers the error by up to B times itself, the sooner the larger κ is.

K. Luo, H. Wen, S. Hu, Z. Sun, Z. Liu, M. Sun, K. Lyu, W. Chen, arXiv 2503.12811 (2025), with sums over steps of equal
FLOPs as integrals. Here the rate falls in a straight line over FLOPs, and S_c has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sdas.errors import ScalingError
from sdas.scaling.law import Array, Law

GAMMA = 0.5
"""γ. Cool-downs of one shape do not tell it from κ and β."""
KAPPAS = np.geomspace(0.1, 1e5, 25)
BETAS = np.geomspace(0.1, 5.0, 9)
"""What is searched: κ, per FLOPs of the longest run that was fitted, and β."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class CoolDown:
    """start: FLOPs at which the rate begins to fall. length: FLOPs until it is zero."""

    start: float
    length: float

    def __post_init__(self) -> None:
        if not (0 < self.start < np.inf and 0 < self.length < np.inf):
            raise ScalingError(f"a cool-down wants a start and a length above zero, got {self.start} and {self.length}")

    def rate(self, compute: ArrayLike) -> Array:
        """η, from 1 to 0."""
        return np.asarray(np.clip(1 - (np.asarray(compute, dtype=np.float64) - self.start) / self.length, 0, 1))

    def summed(self, compute: ArrayLike) -> Array:
        """S: FLOPs times their rate, since the start of the run."""
        before = np.minimum(np.asarray(compute, dtype=np.float64), self.start)
        return np.asarray(before + self.length * (1 - self.rate(compute) ** 2) / 2)

    def fallen(self, compute: ArrayLike, kappa: float, beta: float, gamma: float = GAMMA) -> Array:
        """∫ G(η^−γ S_c) dη over the rates that were passed."""
        left = self.rate(compute)[..., None]
        rates = left + (1 - left) * (_NODES + 1) / 2
        since = self.length * (rates**2 - left**2) / 2
        gains = 1 - (1 + kappa * since * rates**-gamma) ** -beta
        return np.asarray((gains * _WEIGHTS).sum(-1) * (1 - left[..., 0]) / 2)


@dataclass(frozen=True, eq=False)
class CooledLaw:
    """law: of the curve at a constant rate. b, kappa, beta: B in the unit of errors, κ per FLOP, and β.

    scatter: relative scatter of the cooled points. points: how many there were.
    """

    law: Law
    b: float
    kappa: float
    beta: float
    scatter: float
    points: int

    def predict(self, compute: ArrayLike, cool_down: CoolDown) -> Any:
        """E(C) of a run with this cool-down; raises :class:`ScalingError` where it would not be above zero."""
        error = self.law.predict(cool_down.summed(compute))
        error = error - self.b * cool_down.fallen(compute, self.kappa, self.beta)
        if not np.all(error > 0):
            raise ScalingError(f"the multi-power law leaves no error at {np.max(compute):.3g} FLOPs: too far to tell")
        return error if np.ndim(error) else float(error)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"b": self.b, "kappa": self.kappa, "beta": self.beta, "scatter": self.scatter, "points": self.points}


def fit_cooled(law: Law, compute: ArrayLike, error: ArrayLike, cool_downs: list[CoolDown]) -> CooledLaw:
    """Fit B, κ and β to points of cool-downs, given the law at a constant rate.

    compute, error: FLOPs and validation errors of averaged weights, ``[n]``; cool_downs: that of each point, ``[n]``.
    For every κ and β of a grid the best B ≥ 0 has a closed form; residuals are relative.

    Raises :class:`ScalingError` without points, or for lists of different lengths.
    """
    c, e = np.asarray(compute, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if not (len(c) == len(e) == len(cool_downs) > 0):
        raise ScalingError(
            f"compute, error and cool_downs must be lists of one length, got {len(c)}, {len(e)} and {len(cool_downs)}"
        )
    if not (np.isfinite(e).all() and (e > 0).all()):
        raise ScalingError("error must be positive and finite")
    steady = np.array([law.predict(float(each.summed(at))) for each, at in zip(cool_downs, c, strict=True)])
    best: tuple[float, float, float, float] = (np.inf, 0.0, 0.0, 0.0)
    for kappa in KAPPAS / c.max():
        for beta in BETAS:
            fallen = np.array([float(each.fallen(at, kappa, beta)) for each, at in zip(cool_downs, c, strict=True)])
            x, y = fallen / e, (steady - e) / e
            b = max(0.0, float(x @ y) / max(float(x @ x), 1e-300))
            cost = float(np.mean((y - b * x) ** 2))
            if cost < best[0] * (1 - 1e-9):
                best = (cost, b, float(kappa), float(beta))
    return CooledLaw(law, best[1], best[2], best[3], best[0] ** 0.5, len(c))
