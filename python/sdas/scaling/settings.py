"""From the section ``scaling`` of a configuration to the rules, and the preset of the published ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdas.config import Config, ScalingConfig
from sdas.errors import ConfigError
from sdas.scaling.policy import candidates
from sdas.scaling.pool import Pool
from sdas.scaling.rules import Rules, Sizes

PARTS = 40
"""ΔC is this part of the budget if nothing is said."""
OURS = ("budget_flops", "delta_flops", "grow")
"""Rules that are made of settings, not settings themselves."""


def rules_of(settings: ScalingConfig) -> Rules:
    """The rules up to the cool-down, whose FLOPs are set aside. Raises :class:`ConfigError` for a missing budget, and
    for rules that do not go together."""
    if settings.flops is None:
        raise ConfigError("scaling.flops is not set: give the budget, as in --flops 3e12")
    same = {name: getattr(settings, name) for name in Rules.__dataclass_fields__ if name not in OURS}
    delta = settings.flops / PARTS if settings.delta_flops is None else settings.delta_flops
    constant = (1 - settings.cooldown) * settings.flops
    if constant < delta:
        raise ConfigError(
            f"scaling.delta_flops must be at most the {constant:.3g} FLOPs before the cool-down, got {delta:.3g}: "
            "lower it, or raise scaling.flops"
        )
    return Rules(constant, delta, grow=tuple(settings.grow), **same)


def published_values(flops: float) -> dict[str, Any]:
    """The section ``scaling`` by which a run follows the published rules: section.key → value."""
    rules = asdict(Rules.published(flops))
    values = {name: value for name, value in rules.items() if name not in OURS}
    values |= {"flops": flops, "delta_flops": rules["delta_flops"], "grow": list(rules["grow"])}
    return {f"scaling.{name}": value for name, value in {**values, "warmup": 0.0, "cooldown": 0.0}.items()}


def starting_sizes(config: Config, pool: Pool) -> Sizes:
    """The sizes that a run begins with."""
    start, model = config.scaling.start_frames, config.model
    if start > pool.own_frames:
        raise ConfigError(f"scaling.start_frames must be at most the {pool.own_frames} training frames, got {start:g}")
    frames = int(start) if start > 1 else max(1, round(start * pool.own_frames))
    return Sizes(model.channels, model.heads, model.layers, model.lmax, frames)


def check_settings(config: Config, rules: Rules, pool: Pool) -> None:
    """Raise :class:`ConfigError` for what would only fail once a model grows, or has no plan."""
    if config.train.batch_size is None:
        unit, _ = config.train.batch_budget
        raise ConfigError(
            f"scaling counts steps of train.batch_size frames: set it, and train.batch_{unit} to null, as steps by a "
            "budget do not cost alike"
        )
    sizes = starting_sizes(config, pool)
    candidates(sizes, len(pool.order), rules)
    if config.model.layer != "default" and set(rules.grow) != {"data"}:
        raise ConfigError(
            f"model.layer must be default for a model that grows, got {config.model.layer}: set it, or scaling.grow to "
            "[data]"
        )
