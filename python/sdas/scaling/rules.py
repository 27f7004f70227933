"""The settings of adaptive scaling, and the sizes that it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sdas.errors import ConfigError, ScalingError

Axis = Literal["width", "depth", "degree", "heads", "data"]
AXES: tuple[Axis, ...] = get_args(Axis)
Unit = Literal["relative", "eV/Å/FLOP"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and of its data: W channels of every degree, heads, D layers, the highest degree, N frames."""

    channels: int
    heads: int
    layers: int
    lmax: int
    frames: int

    def __post_init__(self) -> None:
        if min(self.channels, self.heads, self.layers, self.frames) < 1 or self.lmax < 0:
            raise ScalingError(f"channels, heads, layers and frames must be at least 1, and lmax 0 or more, got {self}")
        if self.channels % self.heads:
            raise ScalingError(f"heads must divide the channels, got {self.heads} heads for {self.channels} channels")


@dataclass(frozen=True)
class Rules:
    """The settings of adaptive scaling; each is checked where it is made.

    budget_flops: for the whole run, trials included. delta_flops: ΔC, between two decisions.

    epsilon: the least marginal gain. In the unit ``relative`` it is compared with −d log E / d log C, a pure number;
    in ``eV/Å/FLOP`` with −dE/dC. A model that follows a law of a smaller exponent than larger ones do is too small.

    target: an error in eV/Å that is good enough; 0 is none. grow: which sizes may grow. choose: ``trials`` ranks
    candidates by short trials, ``all`` grows everything at once. reset_optimizer: whether growth begins with a new
    optimizer state.

    k_w, k_d, k_n, k_h: factors of channels, layers, frames and heads; layers are rounded up, k_h is a whole number, the
    degree grows by one. Heads never outgrow the channels: k_w brings room for them. largest_channels, largest_layers,
    largest_lmax: where growth ends; frames end with the pool.

    patience: FLOPs have to be so many times those at the last growth before anything is judged. New weights take a few
    hundred steps to gain, so the curve is first flat and then steep: no law fits both. The law is fitted to what lies
    beyond √patience times the FLOPs at growth.

    trial: how long a trial is, in ΔC. What grows late does not gain back what it disturbed, so the budget has to hold
    trials, and ``payback`` times the FLOPs so far after them.
    Where none gains, they are made again at ``retry`` times the FLOPs, while training on still gains ``worth`` of ε;
    below that a run stops.

    confidence: of the interval whose upper end is taken for the gain of a law that is not identifiable.
    """

    budget_flops: float
    delta_flops: float
    epsilon: float = 0.5
    epsilon_unit: Unit = "relative"
    target: float = 0.0
    grow: tuple[Axis, ...] = AXES
    choose: Literal["trials", "all"] = "trials"
    k_w: float = 2.0
    k_d: float = 1.5
    k_n: float = 2.0
    k_h: float = 2.0
    largest_channels: int = 512
    largest_layers: int = 12
    largest_lmax: int = 4
    reset_optimizer: bool = False
    patience: float = 4.0
    trial: float = 0.5
    payback: float = 4.0
    retry: float = 1.5
    worth: float = 0.1
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta_flops", "budget_flops"):
            _want(name, getattr(self, name), "positive and finite", 0 < getattr(self, name) < math.inf)
        wanted = f"at least one delta_flops, {self.delta_flops:g}"
        _want("budget_flops", self.budget_flops, wanted, self.budget_flops >= self.delta_flops)
        for name in ("k_w", "k_d", "k_n"):
            _want(name, getattr(self, name), "greater than 1 and finite", 1 < getattr(self, name) < math.inf)
        _want("k_h", self.k_h, "a whole number of at least 2", self.k_h >= 2 and self.k_h == int(self.k_h))
        _want("trial", self.trial, "positive and finite", 0 < self.trial < math.inf)
        _want("patience", self.patience, "at least 1 and finite", 1 <= self.patience < math.inf)
        _want("payback", self.payback, "0 or more", 0 <= self.payback < math.inf)
        _want("retry", self.retry, "at least 1 and finite", 1 <= self.retry < math.inf)
        _want("worth", self.worth, "from 0 to 1", 0 <= self.worth <= 1)
        _want("epsilon_unit", self.epsilon_unit, f"one of {get_args(Unit)}", self.epsilon_unit in get_args(Unit))
        _want("target", self.target, "0 or more", 0 <= self.target < math.inf)
        _want("grow", self.grow, f"some of {AXES}", bool(self.grow) and set(self.grow) <= set(AXES))
        _want("choose", self.choose, "trials or all", self.choose in ("trials", "all"))
        for name in ("largest_channels", "largest_layers"):
            _want(name, getattr(self, name), "at least 1", getattr(self, name) >= 1)
        _want("largest_lmax", self.largest_lmax, "0 or more", self.largest_lmax >= 0)
        _want("confidence", self.confidence, "between 0 and 1", 0 < self.confidence < 1)

    @classmethod
    def published(cls, budget_flops: float) -> Rules:
        """The rules as published: width, depth and data grow at once, and the optimizer begins anew.

        The numbers are ours, since the publication's are not at hand: ΔC is a twentieth of the budget; k_W = 2,
        k_D = 1.5, k_N = 2; and ε = 0.05 as a relative gain, since a gain per FLOP depends on the molecule. 0.05 is the
        least exponent that has been published for such models.
        """
        grow: tuple[Axis, ...] = ("width", "depth", "data")
        return cls(
            budget_flops, budget_flops / 20, epsilon=0.05, grow=grow, choose="all", patience=1.0, reset_optimizer=True
        )


def _want(name: str, given: object, wanted: str, right: bool) -> None:
    if not right:
        raise ConfigError(f"scaling.{name} must be {wanted}, got {given}")
