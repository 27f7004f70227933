"""A trajectory by a model, from which its diffusion constants are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from sdas.diffusion.paths import NOT_PERIODIC
from sdas.errors import SdasError
from sdas.md import Replicas
from sdas.md.replica_run import run_replicas


@dataclass(frozen=True)
class DynamicsSettings:
    """Steps of `timestep_fs`, written every `every`; replicas with seeds that count on from `seed`."""

    temperature_k: float
    steps: int = 20_000
    timestep_fs: float = 0.5
    every: int = 20
    replicas: int = 1
    seed: int = 0
    dtype: str = "float64"


def run_dynamics(
    model: str | Path, atoms: Atoms, settings: DynamicsSettings, folder: Path, fresh: bool = False
) -> None:
    """Run replicas at constant temperature, or what is left of an interrupted run.

    The thermostat is Bussi's, which scales all velocities alike and leaves the motion of atoms among each other as it
    is; friction on every atom would slow diffusion. Raises SdasError, for a structure that is not periodic and where
    every replica explodes too.
    """
    if not atoms.pbc.all():
        raise SdasError(f"the structure is {NOT_PERIODIC}")
    if settings.replicas < 1:
        raise SdasError(f"wants at least one replica, got {settings.replicas}")
    replicas = Replicas(
        model,
        [atoms] * settings.replicas,
        "bussi",
        settings.temperature_k,
        timestep_fs=settings.timestep_fs,
        seed=settings.seed,
        dtype=settings.dtype,
    )
    run_replicas(replicas, settings.steps, folder, every=settings.every, fresh=fresh, progress=True)
    ended = [verdict for verdict in replicas.verdicts if verdict is not None]
    if len(ended) == settings.replicas:
        raise SdasError(
            f"{folder}: all replicas exploded, the first at step {ended[0].step}: {ended[0].reason}. Their "
            "trajectories are kept. Try a shorter time step, or train the model on structures like the last frames"
        )
