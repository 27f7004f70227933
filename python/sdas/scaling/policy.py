"""The rules of adaptive scaling: go on, try candidates, grow, or stop. Numbers in, decision out.

Every ΔC FLOPs the law is fitted again and :func:`decide` is asked. While the marginal gain is at least ε, training goes
on. Below ε, training as it is has become too dear, and the model or its data grow. What grows is either everything that
may (the published rule) or the candidate that short trials rank first, their cost charged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sdas.errors import ConfigError, ScalingError
from sdas.scaling.law import Law
from sdas.scaling.rules import AXES, Axis, Rules, Sizes

SURE = 1.645
"""Standard errors by which an error has to rise, to be sure that it does: one-sided, 95 %."""


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
    pool_frames: frames in use and to be had. step_flops: of one training step, 0 if not known. trials: those made from
    this very state; empty before they are made. grown: the axes that have grown, one after another. grown_at, tried_at:
    ``compute`` at the last growth, and when trials were made since then of which none gained; 0 if never.
    """

    spent: float
    compute: float
    error: float
    sizes: Sizes
    pool_frames: int
    step_flops: float = 0.0
    trials: tuple[Trial, ...] = ()
    grown: tuple[Axis, ...] = ()
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


def paired_noise(before: Sequence[float], after: Sequence[float]) -> float:
    """The standard error of the difference of two errors over the first, from what each of the same frames adds."""
    number, difference = len(before), [b - a for b, a in zip(before, after, strict=True)]
    mean = sum(difference) / number
    variance = sum((d - mean) ** 2 for d in difference) / (number - 1)
    return math.sqrt(number * variance) / sum(before)


def _affordable(grown: Mapping[Axis, Sizes], state: State, rules: Rules) -> dict[Axis, Sizes]:
    """Candidates of which ΔC pays a training step at least, by a rough estimate. So no step exceeds the budget much."""

    def step_flops(sizes: Sizes) -> float:
        now = state.sizes
        width, depth = sizes.channels / now.channels, sizes.layers / now.layers
        return state.step_flops * width**2 * depth * ((sizes.lmax + 1) / (now.lmax + 1)) ** 2

    return {axis: sizes for axis, sizes in grown.items() if step_flops(sizes) <= rules.delta_flops}


def _in_turn(grown: Mapping[Axis, Sizes], state: State) -> dict[Axis, Sizes]:
    """Those that have grown least often: sizes grow in balance, as a trial is too short to see what depth is worth."""
    least = min((state.grown.count(axis) for axis in grown), default=0)
    return {axis: sizes for axis, sizes in grown.items() if state.grown.count(axis) == least}


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
        reason = f"The budget at a constant rate, {rules.budget_flops:.3g} FLOPs, is spent."
        return Decision("stop", reason, state.spent, numbers=numbers)
    if state.error <= rules.target:
        reason = f"The error {state.error:.4g} eV/Å has reached the target {rules.target:.4g} eV/Å."
        return Decision("stop", reason, state.spent, numbers=numbers)
    if state.compute < rules.patience * state.grown_at:
        reason = f"Too soon after the growth at {state.grown_at:.3g} FLOPs."
        return Decision("go on", reason, until, numbers=numbers)
    if law is None or not law.ready:
        why = law.why if law else "it has too few points for a law."
        return Decision("go on", f"The curve cannot be judged yet: {why}", until, numbers=numbers)

    numbers |= {"epsilon": rules.epsilon, "unit": rules.epsilon_unit} | _gain(law, state.compute, rules)
    judged = "" if law.identifiable else ", at the upper end of its interval,"
    compared = f"the gain{judged} is {numbers['judged_gain']:.3g} and ε is {rules.epsilon:.3g} ({rules.epsilon_unit})"
    if numbers["judged_gain"] >= rules.epsilon:
        return Decision("go on", f"Training still pays: {compared}.", until, numbers=numbers)

    if rules.choose == "all":
        everything = {axis: together(state.sizes, grown) for axis in grown}
        grown = grown if _affordable(everything, state, rules) else {}
    else:
        grown = _in_turn(_affordable(grown, state, rules), state)
    if not grown:
        return _without_growth(f"Nothing is left to grow: {compared}", state, rules, until, numbers)
    if rules.choose == "all":
        reason = f"Training no longer pays: {compared}. Everything that may grow does."
        sizes = together(state.sizes, grown)
        return Decision("scale up", reason, until, tuple(grown), sizes, rules.reset_optimizer, numbers)
    if state.trials:
        return _by_trials(law, state, rules, until, numbers)
    if state.compute < rules.retry * state.tried_at:
        reason = f"No candidate gained a while ago, so training goes on: {compared}."
        return Decision("go on", reason, until, numbers=numbers)
    trials = len(grown) * rules.trial * rules.delta_flops
    if rules.budget_flops - state.spent < trials + rules.payback * state.compute:
        reason = f"Training no longer pays, and what grows would not pay back within the budget: {compared}."
        return Decision("go on", reason, until, numbers=numbers)
    reason = f"Training no longer pays: {compared}. Trials will tell what to grow."
    return Decision("try", reason, until, tuple(grown), numbers=numbers)


def _by_trials(law: Law, state: State, rules: Rules, until: float, numbers: dict[str, Any]) -> Decision:
    """Scale up the better half of the candidates at once, without those that surely raise the error.

    That training on pays too little is what ε has said. A larger model gains later than a trial is long, so none has
    to prove here that it will; the trials tell which candidates, and keep out what does harm. Each growth disturbs what
    was learned, so two at once cost less than one after the other.
    """
    ranked = rank(state.trials, state, rules)
    numbers |= {"ranked": [asdict(each) for each in ranked]}
    numbers |= {"gain_per_flop_of_going_on": law.marginal_gain(state.compute)}
    best, better = ranked[0], ranked[: math.ceil(len(ranked) / 2)]
    chosen = {each.trial.axis: each.trial.sizes for each in better if each.gain > -SURE * each.trial.noise}
    sizes = together(state.sizes, chosen)
    while chosen and not _affordable({best.trial.axis: sizes}, state, rules):
        chosen.popitem()
        sizes = together(state.sizes, chosen)
    if chosen:
        reason = f"Of {len(ranked)} candidates {best.trial.axis} does best, and {' and '.join(chosen)} grow."
        return Decision("scale up", reason, until, tuple(chosen), sizes, rules.reset_optimizer, numbers)
    none = (
        f"No candidate gains: by the best, {best.trial.axis}, the error falls by {best.gain:.3g} eV/Å, with a noise of "
        f"{best.trial.noise:.3g}"
    )
    return _without_growth(none, state, rules, until, numbers)


def _without_growth(why: str, state: State, rules: Rules, until: float, numbers: dict[str, Any]) -> Decision:
    """Train on while that gains a little."""
    if numbers["judged_gain"] < rules.worth * rules.epsilon:
        return Decision("stop", f"{why}, and training on gains next to nothing.", state.spent, numbers=numbers)
    return Decision("go on", f"{why}. Training on still gains a little.", until, numbers=numbers)


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
