"""A point of a training run, by steps, wall time or FLOPs since its start."""

from __future__ import annotations

from dataclasses import dataclass

from sdas.config import TrainConfig
from sdas.errors import TrainingError
from sdas.train.state import Progress


@dataclass(frozen=True)
class Until:
    """Exactly one of optimizer steps, minutes of wall time, and FLOPs of all processes, since the start."""

    steps: int | None = None
    minutes: float | None = None
    flops: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.minutes, self.flops) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise TrainingError(f"a point of a run is one positive number of steps, minutes or FLOPs, got {self}")

    @classmethod
    def of(cls, settings: TrainConfig) -> Until:
        """The end of a run as configured."""
        return cls(steps=settings.steps, minutes=settings.minutes)

    @property
    def total(self) -> float:
        """How far it is from the start, in steps, seconds or FLOPs."""
        if self.steps is not None:
            return float(self.steps)
        return 60 * self.minutes if self.minutes is not None else float(self.flops or 0)

    def passed(self, progress: Progress) -> float:
        """How far a run has come, in the same unit."""
        if self.steps is not None:
            return float(progress.step)
        return progress.wall_s if self.minutes is not None else float(progress.flops)

    def fraction(self, progress: Progress) -> float:
        """The part of the way that has passed; more than 1 beyond the point."""
        return self.passed(progress) / self.total

    def reached(self, progress: Progress) -> bool:
        """Whether a run has come so far."""
        return self.passed(progress) >= self.total
