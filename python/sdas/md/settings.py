"""What a simulation is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sdas.errors import SdasError

ENSEMBLES = ("nve", "nvt")


@dataclass(frozen=True)
class MDSettings:
    """One run: `steps` of `timestep_fs` from velocities drawn at `temperature_k`.

    ensemble: "nve" (velocity Verlet) or "nvt" (Langevin with `friction_per_ps`). seed: of the velocities and of the
    thermostat. sample_every: steps between rows of the log and frames of the trajectory. save_every: steps between
    saved states, from which an interrupted run goes on. Two atoms closer than `closest_ang` (Å), or a kinetic
    temperature above `hottest_k`, end the run.
    """

    steps: int = 2000
    timestep_fs: float = 0.5
    temperature_k: float = 300.0
    ensemble: str = "nve"
    friction_per_ps: float = 2.0
    seed: int = 0
    sample_every: int = 10
    save_every: int = 500
    closest_ang: float = 0.4
    hottest_k: float = 20_000.0

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise SdasError(f"ensemble must be one of {', '.join(ENSEMBLES)}, got {self.ensemble!r}")
        for name in ("timestep_fs", "friction_per_ps", "sample_every", "save_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise SdasError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("steps", "temperature_k", "closest_ang", "hottest_k", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SdasError(f"{name} must be a finite number, not negative, got {getattr(self, name)}")

    def physics(self) -> dict[str, Any]:
        """What a resumed run must share with the run that it continues: all but lengths and intervals of saving."""
        names = ["timestep_fs", "temperature_k", "ensemble", "seed", "sample_every"]
        if self.ensemble == "nvt":
            names.append("friction_per_ps")
        return {name: getattr(self, name) for name in names}
