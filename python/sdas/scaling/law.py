"""The scaling law of one learning curve: validation error against the FLOPs of training.

    E(C) = E∞ + A·C^−α          E∞, A ≥ 0

How it is fitted
    Variable projection: for every α of a grid the best (E∞, A) has a closed form, so only α is searched.
    Residuals are r = log E − log E(C). A validation error is uncertain by a part of itself, whatever its unit, so early
    large errors must not outweigh late small ones; and a point twice too high counts as much as one twice too low.
    Each pass linearizes the logarithm and solves weighted non-negative least squares; weights are Huber's, with a
    scale from the median of |r|, so single outliers do little.

Transients
    The first points of a run follow no power law. At most a third of all points may be left out, from the start only,
    and leaving out one more has to lower the cost by more than that of a residual of three scales.

Intervals
    Validation errors of one run are correlated. So residuals are drawn in moving blocks, added to the fitted curve, and
    fitted again; quantiles of these fits are the intervals. Blocks get longer as residuals correlate more. Where E∞ = 0
    cannot be excluded, half of the curves are drawn about the best one without E∞, and an interval spans those of both
    halves: zero is the edge of what is allowed, and near it quantiles about the best curve alone leave the truth out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdas.errors import ScalingError

Array = NDArray[np.float64]

ALPHAS = np.geomspace(0.01, 3.0, 33)
"""The grid of exponents. An interval that reaches one of its ends says that the curve does not determine α."""

LEAST_POINTS = 10
LEAST_RANGE = 1.9
KNOWN_RANGE = 5.0
LARGEST_BULGE = 2.5
WIDEST = 3.0
"""A law is ready with so many points over the first factor of C, if the middle third of the residuals lies above the
others by no more than so many standard errors. α is known over the second factor, if the ends of its interval are not
farther apart than the last one."""

LEAST_FITTED = 4
"""Points that a fit wants."""
HUBER = 1.345
_SMALLEST_SCALE = 1e-4  # no validation is as exact as 0.01 %, and no fit here either
_TRANSIENT = HUBER * (3 - HUBER / 2)  # Huber's cost of a residual of three scales
_LIKELY = 4.0  # a curve whose cost is higher by less is not excluded: well beyond χ², since the scale is uncertain too


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted law. Errors have the unit of the errors that were fitted, here eV/Å; compute is in FLOPs.

    e_inf, a, alpha: E∞, A and α. first, last: the range of C that was fitted. points: how many were used; left_out: how
    many were taken for a transient. scatter: the relative scatter of single points. ready: whether there are enough
    points over enough range to judge a gain by. identifiable: whether E∞, A and α are known one by one. why: the reason
    if not, one sentence; empty otherwise.
    """

    e_inf: float
    a: float
    alpha: float
    first: float
    last: float
    points: int
    left_out: int
    scatter: float
    ready: bool
    identifiable: bool
    why: str
    _drawn: dict[str, Array]

    def predict(self, compute: ArrayLike) -> Any:
        """E(C); an array for an array."""
        return _as_given(self.e_inf + self._falling(compute))

    def marginal_gain(self, compute: ArrayLike) -> Any:
        """−dE/dC = α·A·C^−(α+1), in eV/Å per FLOP."""
        return _as_given(self.alpha * self._falling(compute) / _positive(compute))

    def slope(self, compute: ArrayLike) -> Any:
        """−d log E / d log C: by how many percent E falls when C grows by one. It has no unit."""
        return _as_given(self.alpha * self._falling(compute) / (self.e_inf + self._falling(compute)))

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Where ``alpha``, ``e_inf`` or ``a`` lies with probability ``level``."""
        if name not in ("alpha", "e_inf", "a"):
            raise ScalingError(f"name must be alpha, e_inf or a, got {name!r}")
        return _quantiles(self._drawn[name], level)

    def predict_interval(self, compute: float, level: float = 0.95) -> tuple[float, float]:
        """The interval of E(C), without the scatter of a single validation."""
        return _quantiles(self._drawn["e_inf"] + self._drawn_falling(compute), level)

    def marginal_gain_interval(self, compute: float, level: float = 0.95) -> tuple[float, float]:
        """The interval of −dE/dC."""
        return _quantiles(self._drawn["alpha"] * self._drawn_falling(compute) / compute, level)

    def slope_interval(self, compute: float, level: float = 0.95) -> tuple[float, float]:
        """The interval of −d log E / d log C."""
        falling = self._drawn_falling(compute)
        return _quantiles(self._drawn["alpha"] * falling / (self._drawn["e_inf"] + falling), level)

    def as_dict(self) -> dict[str, Any]:
        """Parameters, intervals and judgement, ready for JSON."""
        parameters = {name: getattr(self, name) for name in ("e_inf", "a", "alpha")}
        fields = ("first", "last", "points", "left_out", "scatter", "ready", "identifiable", "why")
        return (
            parameters
            | {f"{name}_interval": list(self.interval(name)) for name in parameters}
            | {name: getattr(self, name) for name in fields}
        )

    def _falling(self, compute: ArrayLike) -> Array:
        return np.asarray(self.a * _positive(compute) ** -self.alpha)

    def _drawn_falling(self, compute: float) -> Array:
        return self._drawn["at_last"] * (_positive(compute) / self.last) ** -self._drawn["alpha"]


def fit(compute: ArrayLike, error: ArrayLike, seed: int = 0, resamples: int = 200) -> Law:
    """Fit E(C) = E∞ + A·C^−α.

    compute: FLOPs since the start, rising, ``[n]``. error: validation errors at these points, of averaged weights at a
    constant learning rate, ``[n]``; a decaying rate bends the curve, and the bend would be taken for E∞. seed: of the
    resampling; the same seed gives the same law, bit for bit. resamples: fits that the intervals are made of.

    Raises :class:`ScalingError` for fewer than four points, numbers that are not positive and finite, and compute that
    does not rise. Whether the law means anything is another question: see ``ready`` and ``identifiable``.
    """
    c, e = _checked(compute, error)
    if resamples < 20:
        raise ScalingError(f"resamples must be at least 20, got {resamples}")
    log_c, unit = np.log(c / c[-1]), float(np.exp(np.mean(np.log(e))))
    log_e = np.log(e / unit)

    left_out = _transient(log_c, log_e)
    log_c, log_e = log_c[left_out:], log_e[left_out:]
    best, scale = _fit_with_scale(log_c, log_e)
    centers = np.log(best.curve(log_c))
    straight = _straight(log_c, log_e, scale)
    if np.sum(_cost(log_e - straight, scale)) < best.cost[0] + _LIKELY:
        centers = np.stack([centers[0], straight])
    curves = np.repeat(centers, resamples // len(centers), axis=0)
    samples = curves + _drawn_in_blocks(log_e - centers[0], len(curves), np.random.default_rng(seed))
    drawn = _fit_all(log_c, samples, np.ones_like(samples), scale, np.exp(curves))

    factor = unit * c[-1] ** drawn.alpha
    replicates = {"e_inf": unit * drawn.e_inf, "a": factor * drawn.a, "alpha": drawn.alpha, "at_last": unit * drawn.a}
    replicates = {name: np.reshape(values, (len(centers), -1)) for name, values in replicates.items()}
    ready, why = _judged(c[left_out:], (log_e - centers[0]) / scale, scale, replicates["alpha"], replicates["a"])
    return Law(
        e_inf=unit * float(best.e_inf[0]),
        a=unit * float(best.a[0] * c[-1] ** best.alpha[0]),
        alpha=float(best.alpha[0]),
        first=float(c[left_out]),
        last=float(c[-1]),
        points=len(log_e),
        left_out=left_out,
        scatter=scale,
        ready=ready,
        identifiable=not why,
        why=why,
        _drawn=replicates,
    )


def law_since(grown_at: float, curve: Iterable[tuple[float, float]], patience: float, seed: int) -> Law | None:
    """The law of what grew at these FLOPs, by the points (FLOPs, error) of a curve that follow it; None if too few."""
    points = [point for point in curve if point[0] >= patience**0.5 * grown_at]
    if len(points) < LEAST_FITTED:
        return None
    compute, error = zip(*points, strict=True)
    return fit(compute, error, seed=seed)


@dataclass(frozen=True)
class _Fits:
    """Parameters of a batch of curves ``[B]``, with C in units of its last value, and their costs."""

    e_inf: Array
    a: Array
    alpha: Array
    cost: Array

    def curve(self, log_c: Array) -> Array:
        """E of every curve at every C, ``[B, n]``."""
        return np.asarray(self.e_inf[:, None] + self.a[:, None] * np.exp(-self.alpha[:, None] * log_c))


def _fit_with_scale(log_c: Array, log_e: Array) -> tuple[_Fits, float]:
    """The fit of one curve, and the scale of its residuals, each made with the other."""
    start = np.exp(_running_median(log_e))[None]
    scale = _scale(log_e - np.log(start[0]), len(log_e))
    for _ in range(3):
        best = _fit_all(log_c, log_e[None], np.ones((1, len(log_e))), scale, start)
        start = best.curve(log_c)
        scale = _scale(log_e - np.log(start[0]), len(log_e))
    return best, scale


def _transient(log_c: Array, log_e: Array) -> int:
    """How many points at the start are left out."""
    most = len(log_e) // 3
    _, scale = _fit_with_scale(log_c[most:], log_e[most:])
    counts = np.arange(most + 1)
    weights = (np.arange(len(log_e)) >= counts[:, None]).astype(np.float64)
    curves = np.broadcast_to(log_e, weights.shape)
    start = np.exp(np.broadcast_to(_running_median(log_e), weights.shape))
    residuals = log_e - np.log(_fit_all(log_c, curves, weights, scale, start).curve(log_c))
    cost = np.minimum(_cost(residuals, scale), 2 * _TRANSIENT)  # no outlier takes more than one good point with it
    return int(np.argmin(np.sum(weights * cost, axis=1) + _TRANSIENT * counts))


def _straight(log_c: Array, log_e: Array, scale: float) -> Array:
    """The logarithm of the best curve with E∞ = 0, a straight line over log C."""
    line = log_e
    for _ in range(5):
        weights = _weights(log_e - line, scale)
        x = log_c - np.average(log_c, weights=weights)
        slope = np.sum(weights * x * log_e) / np.sum(weights * x * x)
        line = np.average(log_e, weights=weights) + np.clip(slope, -ALPHAS[-1], -ALPHAS[0]) * x
    return np.asarray(line)


def _weights(residuals: Array, scale: float) -> Array:
    """Huber's weight of each residual."""
    return np.asarray(np.minimum(1, HUBER * scale / np.maximum(np.abs(residuals), scale)))


def _cost(residuals: Array, scale: float) -> Array:
    """Huber's cost of each residual."""
    u = np.abs(residuals) / scale
    return np.where(u < HUBER, 0.5 * u * u, HUBER * (u - HUBER / 2))


def _fit_all(log_c: Array, log_e: Array, weights: Array, scale: float, start: Array) -> _Fits:
    """Fit curves ``log_e [B, n]``: the grid over α, finer ones about the best, a parabola through the last."""
    rows = np.arange(len(log_e))
    alphas = np.broadcast_to(ALPHAS, (len(log_e), len(ALPHAS)))
    step = math.log(ALPHAS[1] / ALPHAS[0])
    for _ in range(4):
        cost = _project(log_c, log_e, weights, scale, start, alphas)[2]
        center = alphas[rows, np.argmin(cost, axis=1), None]
        alphas = np.clip(center * np.exp(np.linspace(-step, step, 7)), ALPHAS[0], ALPHAS[-1])
        step /= 3
    cost = _project(log_c, log_e, weights, scale, start, alphas)[2]
    best = np.clip(np.argmin(cost, axis=1), 1, alphas.shape[1] - 2)
    left, middle, right = (cost[rows, best + shift] for shift in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.clip(0.5 * (left - right) / np.where(bend > 0, bend, np.inf), -1, 1)
    alpha = np.clip(alphas[rows, best] * np.exp(step * shift), ALPHAS[0], ALPHAS[-1])
    e_inf, a, cost = _project(log_c, log_e, weights, scale, start, alpha[:, None])
    return _Fits(e_inf[:, 0], a[:, 0], alpha, cost[:, 0])


def _project(
    log_c: Array, log_e: Array, weights: Array, scale: float, start: Array, alphas: Array, passes: int = 5
) -> tuple[Array, Array, Array]:
    """E∞, A and cost ``[B, K]`` of the best curve for every α of ``alphas [B, K]``.

    weights: 1 for points that count, 0 for others. start: the curve to begin at, ``[B, n]``.
    """
    x = np.exp(-alphas[..., None] * log_c)
    log_e, weights = log_e[:, None], weights[:, None]
    f = np.broadcast_to(start[:, None], x.shape)
    for _ in range(passes):
        r = log_e - np.log(f)
        g = weights * _weights(r, scale) / (f * f)
        z = f * (1 + np.clip(r, -0.9, 0.9))
        e_inf, a = _non_negative(g, g * x, x, z)
        f = e_inf[..., None] + a[..., None] * x
    return e_inf, a, np.sum(weights * _cost(log_e - np.log(f), scale), axis=-1)


def _non_negative(g: Array, gx: Array, x: Array, z: Array) -> tuple[Array, Array]:
    """The e, a ≥ 0 with the least Σ g (z − e − a·x)². z is positive, so at most one of the two is cut to zero."""
    s0, s1, s2 = np.sum(g, -1), np.sum(gx, -1), np.einsum("...n,...n", gx, x)
    t0, t1 = np.einsum("...n,...n", g, z), np.einsum("...n,...n", gx, z)
    determinant = np.maximum(s0 * s2 - s1 * s1, 1e-14 * s0 * s2)
    e = (s2 * t0 - s1 * t1) / determinant
    a = (s0 * t1 - s1 * t0) / determinant
    return np.where(a < 0, t0 / s0, np.maximum(e, 0)), np.where(e < 0, t1 / s2, np.maximum(a, 0))


def _drawn_in_blocks(residuals: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Residuals of new curves ``[resamples, n]``, in blocks of neighbors.

    The length of a block is n^(1/3), or Carlstein's for a first-order autoregression if that is longer. Residuals are
    stretched, since a fit of three parameters and blocks that are not independent leave them too small, and since
    quantiles of few points lie farther out than those of many (Student's).
    """
    n = len(residuals)
    centered = residuals - np.median(residuals)
    most = 3 * np.median(np.abs(centered))
    centered = np.clip(centered, -most, most)
    rho = float(np.sum(centered[1:] * centered[:-1]) / max(float(np.sum(centered**2)), 1e-300))
    rho = min(max(rho, 0.0), 0.9)
    length = n ** (1 / 3) * max(1.0, (math.sqrt(6) * rho / (1 - rho * rho)) ** (2 / 3))
    length = min(max(1, round(length)), max(1, n // 4))
    starts = generator.integers(0, n - length + 1, size=(resamples, -(-n // length)))
    places = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :n]
    free = max(1, n - 3 - length)
    return np.asarray(residuals[places] * math.sqrt(n / free) * (1 + 1.2 / free))


def _judged(c: Array, residuals: Array, scale: float, alpha: Array, a: Array) -> tuple[bool, str]:
    """Whether a gain can be judged, and why the parameters are not identifiable, if they are not.

    residuals: in units of ``scale``. Every law levels off, so one that falls faster and faster has a middle above it.
    """
    low, high = _quantiles(alpha, 0.95)
    if len(c) < LEAST_POINTS:
        return False, f"{len(c)} points are too few: at least {LEAST_POINTS} are wanted."
    if c[-1] / c[0] < LEAST_RANGE:
        return False, f"compute spans a factor of {c[-1] / c[0]:.3g} only: at least {LEAST_RANGE:g} is wanted."
    clipped, third = np.clip(residuals, -3, 3), len(c) // 3
    bulge = np.mean(clipped[third:-third]) - np.mean(np.r_[clipped[:third], clipped[-third:]])
    if bulge > LARGEST_BULGE * math.sqrt(4.5 / len(c)):
        return False, f"the curve falls faster and faster: its middle lies {bulge * scale:.1%} above any law."
    if np.mean(a <= 0) > 0.025:
        return True, "the curve does not fall by more than its noise."
    if c[-1] / c[0] < KNOWN_RANGE:
        return True, f"compute spans a factor of {c[-1] / c[0]:.3g} only: E∞ and α want at least {KNOWN_RANGE:g}."
    if low <= ALPHAS[0] * 1.01 or high >= ALPHAS[-1] / 1.01:
        return True, f"the exponent is at an end of what is searched: any from {low:.2g} to {high:.2g} fits."
    if high > WIDEST * low:
        return True, f"the curve bends too little to tell E∞ from α: any exponent from {low:.2g} to {high:.2g} fits."
    return True, ""


def _checked(compute: ArrayLike, error: ArrayLike) -> tuple[Array, Array]:
    c, e = np.asarray(compute, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if c.ndim != 1 or c.shape != e.shape:
        raise ScalingError(f"compute and error must be two lists of one length, got shapes {c.shape} and {e.shape}")
    if len(c) < LEAST_FITTED:
        raise ScalingError(f"a law of three parameters wants at least {LEAST_FITTED} points, got {len(c)}")
    for name, values in (("compute", c), ("error", e)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise ScalingError(f"{name} must be positive and finite, got {values[bad[0]]} at place {bad[0]}")
    if not np.all(np.diff(c) > 0):
        place = int(np.flatnonzero(np.diff(c) <= 0)[0]) + 1
        raise ScalingError(f"compute must rise from point to point, got {c[place]:g} after {c[place - 1]:g}")
    return c, e


def _positive(compute: ArrayLike) -> Array:
    c = np.asarray(compute, dtype=np.float64)
    if not np.all(c > 0):
        raise ScalingError(f"compute must be positive, got {compute!r}")
    return c


def _as_given(values: Array) -> Any:
    return values if np.ndim(values) else float(values)


def _quantiles(values: Array, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ScalingError(f"level must lie between 0 and 1, got {level}")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return float(np.min(low)), float(np.max(high))


def _scale(residuals: Array, n: int) -> float:
    """The standard deviation of most residuals, by the median of |r|, with three parameters taken into account."""
    return max(1.4826 * float(np.median(np.abs(residuals))) * math.sqrt(n / max(1, n - 3)), _SMALLEST_SCALE)


def _running_median(values: Array, width: int = 5) -> Array:
    """The median of each value and its neighbors, to begin a fit at."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1))
