"""What a training step of a size costs, counted on two steps that nobody keeps."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from typing import Any

from sdas.config import Config
from sdas.errors import ScalingError
from sdas.scaling.pool import Pool
from sdas.scaling.rules import Rules, Sizes
from sdas.scaling.settings import PARTS
from sdas.train.processes import Processes
from sdas.train.session import Session
from sdas.train.until import Until
from sdas_kernels.nn import SDAS, grow

LEAST_STEPS = 8
"""Training steps that ΔC has to pay: the first validation is made after this part of it."""


@dataclass(frozen=True)
class Cost:
    """A size, what leads to it, its number of parameters, and the FLOPs of one training step of all processes."""

    what: str
    sizes: Sizes
    parameters: int
    step_flops: int


def costs(config: Config, pool: Pool, sizes: Mapping[str, Sizes], processes: Processes) -> list[Cost]:
    """The costs of models that the configured one may grow to. The second step of each is counted: the first one may
    do work that is done once."""
    found = []
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # the run itself says it all again
        train = config.train.model_copy(update={"steps": 10**9, "minutes": None, "tensorboard": False})
        config = config.model_copy(update={"run_dir": folder, "train": train})
        with Session(config, pool.data(next(iter(sizes.values())).frames), processes) as session:
            start = session.model
            for what, each in sizes.items():
                session.use_model(_grown(start, each))
                step = session.progress.step
                session.advance(Until(steps=step + 1))
                before = session.progress.flops
                session.advance(Until(steps=step + 2))
                parameters = sum(weight.numel() for weight in session.model.parameters())
                found.append(Cost(what, each, parameters, session.progress.flops - before))
    return found


def check_budget(cost: Cost, rules: Rules) -> None:
    """Raise :class:`ScalingError` if there is less than a training step before the first validation."""
    least = LEAST_STEPS * cost.step_flops
    if rules.delta_flops < least:
        raise ScalingError(
            f"scaling.delta_flops must be at least {least:.3g}, {LEAST_STEPS} steps of {cost.step_flops:.3g} FLOPs, "
            f"got {rules.delta_flops:.3g}: raise it (where it is not set, --flops above {PARTS * least:.3g}), or start "
            "with a smaller model"
        )


def _grown(model: Any, sizes: Sizes) -> SDAS:
    return grow(model, **{name: size for name, size in asdict(sizes).items() if name != "frames"})
