"""The learning rate of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdas.config import TrainConfig


@dataclass(frozen=True)
class Ramp:
    """A factor of the rate: it goes in a straight line from `first` to `last` while the FLOPs of a run go from `start`
    to `end`; before and after it stays."""

    start: float
    end: float
    first: float
    last: float

    def factor(self, flops: float) -> float:
        """The factor at a point of the run."""
        if self.end <= self.start:
            return self.last
        passed = min(max((flops - self.start) / (self.end - self.start), 0.0), 1.0)
        return self.first + (self.last - self.first) * passed


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Rate of ``step`` (from 0) when the fraction ``progress`` of the run, by steps or by time, has passed.

    The warm-up factor rises linearly to 1 over ``warmup_steps``; cosine is (1 + cos(π·progress)) / 2.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) if config.schedule == "cosine" else 1.0
    return config.learning_rate * warmup * decay


def ema_decay(config: TrainConfig, step: int) -> float:
    """Decay of the averaged weights after ``step``: low at first, so that the random start is forgotten soon."""
    return min(config.ema_decay, (1 + step) / (10 + step))
