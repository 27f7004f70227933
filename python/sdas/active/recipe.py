"""How members are trained: the configuration of each, and where that is done."""

from __future__ import annotations

import os
from pathlib import Path

from sdas.active.engine import Engine, Here, LocalProcesses, RayCluster
from sdas.config import Config, DataConfig, TrainConfig
from sdas.config.active import ActiveConfig

PART = 4
"""Fine-tuning takes this part of a whole training if nothing is said."""


def member_config(config: Config, folder: Path, number: int, member: int, frames: Path, species: list[int]) -> Config:
    """The configuration of a member in the round of that number, which trains on some of the cache ``frames``.

    Members differ by their seed alone.
    """
    train = config.train.model_dump() | {"seed": config.train.seed + member, "threads": threads_of(config)}
    if is_tuned(config.active, number):
        train |= _fine_tuning(config.train, config.active)
    return Config(
        run_dir=str(folder),
        data=DataConfig(path=str(frames), graph_cache_gib=config.data.graph_cache_gib),
        model=config.model.model_copy(update={"species": species}),
        train=TrainConfig(**train),
        scaling=config.scaling,
    )


def is_scaled(active: ActiveConfig, number: int) -> bool:
    """Whether members of the round of that number grow by adaptive scaling."""
    return active.scaling == "every" or (active.scaling == "first" and number == 0)


def is_tuned(active: ActiveConfig, number: int) -> bool:
    """Whether members of the round go on from those of the round before."""
    return number > 0 and active.learning == "fine-tune"


def _fine_tuning(train: TrainConfig, active: ActiveConfig) -> dict[str, float | int | None]:
    """What is different in it: fewer steps, and a lower rate."""
    changed: dict[str, float | int | None] = {"learning_rate": active.rate * train.learning_rate}
    if train.adam_learning_rate is not None:
        changed["adam_learning_rate"] = active.rate * train.adam_learning_rate
    if active.steps is not None:
        return {**changed, "steps": active.steps, "minutes": None}
    if train.steps is not None:
        return {**changed, "steps": max(1, train.steps // PART)}
    return {**changed, "minutes": (train.minutes or 0) / PART}


def engine_of(config: Config) -> Engine:
    """Where members are trained."""
    if config.active.resources.engine == "ray":
        return RayCluster(threads_of(config) or 1)
    count = _at_once(config.active)
    return Here() if count == 1 else LocalProcesses(count, threads_of(config) or 1)


def threads_of(config: Config) -> int | None:
    """CPU threads of a member: as configured, or where several are trained at once an equal part of the cores."""
    if config.train.threads is not None:
        return config.train.threads
    if config.active.resources.engine == "ray":
        return config.active.resources.threads
    count = _at_once(config.active)
    return None if count == 1 else max(1, _cores() // count)


def _at_once(active: ActiveConfig) -> int:
    return min(active.models, active.processes or _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
