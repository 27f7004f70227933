"""How frames are simulated for a pool: the engine, the way of sampling, and how much."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from sdas.config.section import Section, validated

ENGINES = ("mmff", "uff", "openmm", "tblite")
SAMPLINGS = ("dynamics", "modes", "torsions")


class SimulationConfig(Section):
    """A pool of frames of one molecule."""

    engine: str = Field(
        default="mmff",
        description="mmff or uff (RDKit), openmm (Amber ff14SB, for sequences), tblite (GFN2-xTB), or model:RUN.",
    )
    sampling: Literal["dynamics", "modes", "torsions"] = Field(
        default="dynamics",
        description="Langevin dynamics; displacements along normal modes; or random torsions, then short dynamics.",
    )
    frames: int = Field(default=1000, ge=1, description="Frames to make.")
    temperature_k: float = Field(default=300.0, gt=0, description="Temperature, K.")
    conformers: int = Field(default=4, ge=1, description="Most conformers to start from.")
    interval_fs: float = Field(default=100.0, gt=0, description="Time between frames of a trajectory, fs.")
    equilibration_fs: float = Field(default=1000.0, ge=0, description="Time before the first frame, fs.")
    timestep_fs: float = Field(default=0.5, gt=0, description="Time step, fs.")
    friction_per_ps: float = Field(default=10.0, gt=0, description="Friction of the thermostat, 1/ps.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of embedding, velocities and all else that is random.")

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ENGINES and not (value.startswith("model:") and value != "model:"):
            raise ValueError(f"must be {', '.join(ENGINES)} or model:RUN")
        return value


def parse_simulation(**given: Any) -> SimulationConfig:
    """Settings by name; raises :class:`ConfigError` naming the one at fault."""
    return validated(SimulationConfig, given, "simulation")
