"""A pool of frames: geometries that pass the screen, each with the facts of how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdas.config.simulate import SimulationConfig
from sdas.data import Frame
from sdas.errors import SimulationError
from sdas.simulate.engines import make_engine
from sdas.simulate.molecule import Molecule
from sdas.simulate.sampling import samples

PATIENCE = 3
"""So many times the frames wanted, and twenty, may be dropped before it is given up."""


@dataclass(frozen=True)
class Pool:
    """frames: with their facts; without labels unless asked for. dropped: reason → number."""

    frames: list[tuple[Frame, dict[str, Any]]]
    dropped: dict[str, int]


def simulate_pool(
    molecule: Molecule,
    config: SimulationConfig,
    *,
    labels: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Pool:
    """``config.frames`` frames of a molecule; the same seed makes the same ones.

    Args:
        labels: give each frame the energy and the forces of the engine.
        progress: is told of each frame.

    Raises:
        SimulationError: the engine does not know the molecule, or most frames are dropped.
    """
    engine = make_engine(config.engine, molecule)
    facts: dict[str, Any] = {
        "engine": config.engine,
        "sampling": config.sampling,
        "temperature_k": config.temperature_k,
        "seed": config.seed,
        **molecule.origin,
    }
    frames: list[tuple[Frame, dict[str, Any]]] = []
    dropped: Counter[str] = Counter()
    for sample in samples(molecule, engine, config):
        if sample.fault:
            dropped[sample.fault] += 1
            if dropped.total() > PATIENCE * config.frames + 20:
                raise SimulationError(_too_many(dropped, len(frames), config))
            continue
        energy, forces = None, None
        if labels:
            atoms = molecule.atoms(0)
            atoms.positions, atoms.calc = sample.positions, engine
            energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=np.float64)
        name = f"{config.engine} {molecule.name}: frame {len(frames)}"
        frame = Frame(
            molecule.numbers, sample.positions, None, np.zeros(3, dtype=bool), energy, forces, None, name,
            charge=float(molecule.charge), spin=float(molecule.spin),
        )  # fmt: skip
        frames.append((frame, {**facts, **sample.facts}))
        if progress is not None:
            progress(1)
        if len(frames) == config.frames:
            break
    return Pool(frames, dict(dropped))


def _too_many(dropped: Counter[str], kept: int, config: SimulationConfig) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    return (
        f"{dropped.total()} frames were dropped ({told}) while {kept} were kept: lower the temperature "
        f"({config.temperature_k:g} K) or the time step ({config.timestep_fs:g} fs), or take another engine than "
        f"{config.engine}"
    )
