"""The rules of adaptive scaling: go on, try candidates, grow, or stop. Numbers in, decision out.

Every ΔC FLOPs the law is fitted again and :func:`decide` is asked. While the marginal gain is at least ε, training goes
on. Below ε, training as it is has become too dear, and the model or its data grow. What grows is either everything that
may (the published rule) or the candidate that short trials rank first, their cost charged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from sdas.errors import ConfigError, ScalingError
from sdas.scaling.law import Law

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

    patience: ΔC since the last growth before which nothing is judged: what grew disturbs what was learned, and at first
    the error may rise.

    trial: how long a trial is, in ΔC. Trials are made only while they and a ΔC after them are within the budget. Where
    none gains, they are made again once the FLOPs since growth are ``retry`` times as many, while training on still
    gains ``worth`` of ε; below that a run stops.

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
    trial: float = 1.0
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
        _want("patience", self.patience, "0 or more", 0 <= self.patience < math.inf)
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
            budget_flops, budget_flops / 20, epsilon=0.05, grow=grow, choose="all", patience=0.0, reset_optimizer=True
        )


@dataclass(frozen=True)
class Trial:
    """A candidate's short run: what grew, the sizes it made, validation errors in eV/Å at its start and end, its FLOPs.

    ``noise`` is the standard error of ``before − after``.
    """

    axis: Axis
    sizes: Sizes
    before: float
    after: float
    flops: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("before", "after", "flops"):
            if not 0 < getattr(self, name) < math.inf:
                raise ScalingError(
                    f"{name} of the trial of {self.axis} must be positive and finite, got {getattr(self, name)}"
                )
        if not 0 <= self.noise < math.inf:
            raise ScalingError(f"noise of the trial of {self.axis} must be 0 or more, got {self.noise}")


@dataclass(frozen=True)
class State:
    """Where a run stands.

    spent: FLOPs, trials included. compute: FLOPs as the law's curve counts them. error: the last validation, in eV/Å.
    pool_frames: frames in use and to be had. trials: those made from this very state; empty before they are made.
    grown_at, tried_at: ``compute`` at the last growth, and when trials were made since then of which none gained; 0 if
    never.
    """

    spent: float
    compute: float
    error: float
    sizes: Sizes
    pool_frames: int
    trials: tuple[Trial, ...] = ()
    grown_at: float = 0.0
    tried_at: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spent", "compute", "error"):
            if not 0 < getattr(self, name) < math.inf:
                raise ScalingError(f"{name} of the state must be positive and finite, got {getattr(self, name)}")
        if self.pool_frames < self.sizes.frames:
            raise ScalingError(f"pool_frames must be at least the {self.sizes.frames} in use, got {self.pool_frames}")


@dataclass(frozen=True)
class Rank:
    """A trial judged: its gain in eV/Å; ``rate``, gain per FLOP of its own; ``charged``, with all trials paid."""

    trial: Trial
    gain: float
    rate: float
    charged: float


@dataclass(frozen=True)
class Decision:
    """What to do next, and why.

    action: ``go on``; ``try`` the candidates from this state and ask again; ``scale up`` to ``sizes``; ``stop``. until:
    the FLOPs at which to ask again. axes: what grows, or what to try. reason: one sentence. numbers: what it was made
    of, ready for JSON.
    """

    action: Literal["go on", "try", "scale up", "stop"]
    reason: str
    until: float
    axes: tuple[Axis, ...] = ()
    sizes: Sizes | None = None
    reset_optimizer: bool = False
    numbers: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def candidates(sizes: Sizes, pool_frames: int, rules: Rules) -> dict[Axis, Sizes]:
    """The sizes that each axis which may grow, and is not at its end, would lead to.

    Heads grow only to numbers that divide the channels, and those that k_w leads to. Raises :class:`ConfigError` where
    the heads in use do not.
    """
    undivided = _undivided(sizes.channels, sizes.heads, rules)
    if undivided is not None:
        raise ConfigError(
            f"scaling.k_w must lead to channels that {sizes.heads} heads divide: from {sizes.channels}, "
            f"{rules.k_w:g} leads to {undivided:g}"
        )
    heads = int(rules.k_h) * sizes.heads
    fits = sizes.channels % heads == 0 and _undivided(sizes.channels, heads, rules) is None
    frames = min(math.ceil(rules.k_n * sizes.frames), pool_frames)
    growths: dict[Axis, tuple[str, int, int]] = {
        "width": ("channels", round(rules.k_w * sizes.channels), rules.largest_channels),
        "depth": ("layers", math.ceil(rules.k_d * sizes.layers), rules.largest_layers),
        "degree": ("lmax", sizes.lmax + 1, rules.largest_lmax),
        "heads": ("heads", heads, heads if fits else 0),
        "data": ("frames", frames, pool_frames),
    }
    return {
        axis: replace(sizes, **{name: value})
        for axis, (name, value, largest) in growths.items()
        if axis in rules.grow and getattr(sizes, name) < value <= largest
    }


def _undivided(channels: float, heads: int, rules: Rules) -> float | None:
    """The first number of channels, of those that k_w leads to, which the heads do not divide."""
    while "width" in rules.grow and (channels := rules.k_w * channels) <= rules.largest_channels:
        if not math.isclose(channels, heads * round(channels / heads)):
            return channels
    return None


def rank(trials: Iterable[Trial], state: State, rules: Rules) -> list[Rank]:
    """Trials by gain per FLOP with all trials paid, the best first.

    A trial's rate is (before − after) / FLOPs, so a larger model pays for its dearer steps. The winner goes on from the
    end of its trial; the trials of the others are lost. Over the next ΔC the winner then gains rate·ΔC at the price of
    ΔC and what was lost: ``charged`` = rate · ΔC / (ΔC + lost).

    Raises :class:`ScalingError` for a trial that did not start from ``state``.
    """
    trials = list(trials)
    grown = candidates(state.sizes, state.pool_frames, rules)
    total = sum(trial.flops for trial in trials)
    ranked = []
    for trial in trials:
        if grown.get(trial.axis) != trial.sizes:
            raise ScalingError(f"the trial of {trial.axis} is not of this state: {trial.sizes}, from {state.sizes}")
        gain = trial.before - trial.after
        lost = total - trial.flops
        rate = gain / trial.flops
        ranked.append(Rank(trial, gain, rate, rate * rules.delta_flops / (rules.delta_flops + lost)))
    return sorted(ranked, key=lambda each: (-each.charged, AXES.index(each.trial.axis)))


def decide(law: Law | None, state: State, rules: Rules) -> Decision:
    """The next act, by the law of the curve up to ``state.compute``; None where it has too few points for one.

    A gain is compared with ε as fitted if the law is identifiable, else by the upper end of its interval: E∞ and α can
    hardly be told apart on a short curve, and what grows cannot be taken back. So only a gain that is too small even
    when seen with hope lets anything grow.
    """
    fitted = law and law.as_dict()
    numbers: dict[str, Any] = {"law": fitted, "state": asdict(state), "rules": asdict(rules)}
    until = min(state.spent + rules.delta_flops, rules.budget_flops)
    grown = candidates(state.sizes, state.pool_frames, rules)
    if state.spent >= rules.budget_flops:
        reason = f"The budget of {rules.budget_flops:.3g} FLOPs is spent."
        return Decision("stop", reason, state.spent, numbers=numbers)
    if state.error <= rules.target:
        reason = f"The error {state.error:.4g} eV/Å has reached the target {rules.target:.4g} eV/Å."
        return Decision("stop", reason, state.spent, numbers=numbers)
    since = state.compute - state.grown_at
    if since < rules.patience * rules.delta_flops:
        reason = f"Too few FLOPs since growth to judge by: {since:.3g}."
        return Decision("go on", reason, until, numbers=numbers)
    if law is None or not law.ready:
        why = law.why if law else "it has too few points for a law."
        return Decision("go on", f"The curve cannot be judged yet: {why}", until, numbers=numbers)

    numbers |= {"epsilon": rules.epsilon, "unit": rules.epsilon_unit} | _gain(law, state.compute, rules)
    judged = "" if law.identifiable else ", at the upper end of its interval,"
    compared = f"the gain{judged} is {numbers['judged_gain']:.3g} and ε is {rules.epsilon:.3g} ({rules.epsilon_unit})"
    if numbers["judged_gain"] >= rules.epsilon:
        return Decision("go on", f"Training still pays: {compared}.", until, numbers=numbers)

    if not grown:
        reason = f"Training no longer pays, and nothing is left to grow: {compared}."
        return Decision("stop", reason, state.spent, numbers=numbers)
    if rules.choose == "all":
        reason = f"Training no longer pays: {compared}. Everything that may grow does."
        sizes = together(state.sizes, grown)
        return Decision("scale up", reason, until, tuple(grown), sizes, rules.reset_optimizer, numbers)
    if not state.trials and since < rules.retry * (state.tried_at - state.grown_at):
        reason = f"No candidate gained a while ago, so training goes on: {compared}."
        return Decision("go on", reason, until, numbers=numbers)
    needed = rules.delta_flops * (1 + rules.trial * len(grown))
    if not state.trials and rules.budget_flops - state.spent < needed:
        reason = f"Training no longer pays, and trials would not pay back within the budget: {compared}."
        return Decision("go on", reason, until, numbers=numbers)
    if not state.trials:
        reason = f"Training no longer pays: {compared}. Trials will tell what to grow."
        return Decision("try", reason, until, tuple(grown), numbers=numbers)
    return _by_trials(law, state, rules, until, numbers)


def _by_trials(law: Law, state: State, rules: Rules, until: float, numbers: dict[str, Any]) -> Decision:
    """Scale up the best candidate that gains more than its noise.

    It need not gain more than going on does: that training on pays too little is what ε has said, and a larger model
    first pays for the disturbance and gains later. The trials tell which candidate, and whether any.
    """
    ranked = rank(state.trials, state, rules)
    numbers |= {"ranked": [asdict(each) for each in ranked]}
    numbers |= {"gain_per_flop_of_going_on": law.marginal_gain(state.compute)}
    gaining = [each for each in ranked if each.gain > each.trial.noise]
    if gaining:
        best = gaining[0]
        reason = (
            f"Of {len(ranked)} candidates {best.trial.axis} gains most: {best.charged:.3g} eV/Å per FLOP with all "
            "trials charged."
        )
        axes = (best.trial.axis,)
        return Decision("scale up", reason, until, axes, best.trial.sizes, rules.reset_optimizer, numbers)
    best = ranked[0]
    none = (
        f"No candidate gains: the best, {best.trial.axis}, {best.gain:.3g} eV/Å with a noise of {best.trial.noise:.3g}"
    )
    if numbers["judged_gain"] < rules.worth * rules.epsilon:
        return Decision("stop", f"{none}, and training on gains next to nothing.", state.spent, numbers=numbers)
    return Decision("go on", f"{none}. Training on still gains a little.", until, numbers=numbers)


def _gain(law: Law, compute: float, rules: Rules) -> dict[str, Any]:
    """The marginal gain in the unit of ε, its interval, and the value that is compared with ε."""
    if rules.epsilon_unit == "relative":
        gain, interval = law.slope(compute), law.slope_interval(compute, rules.confidence)
    else:
        gain, interval = law.marginal_gain(compute), law.marginal_gain_interval(compute, rules.confidence)
    return {"gain": gain, "gain_interval": list(interval), "judged_gain": gain if law.identifiable else interval[1]}


def together(sizes: Sizes, grown: Mapping[Axis, Sizes]) -> Sizes:
    """All growths at once."""
    changed = {name: value for each in grown.values() for name, value in _changes(sizes, each).items()}
    return replace(sizes, **changed)


def _changes(before: Sizes, after: Sizes) -> dict[str, int]:
    return {name: value for name, value in asdict(after).items() if value != getattr(before, name)}


def _want(name: str, given: object, wanted: str, right: bool) -> None:
    if not right:
        raise ConfigError(f"scaling.{name} must be {wanted}, got {given}")
