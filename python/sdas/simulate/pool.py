"""A pool of frames: geometries that pass the screen, each with the facts of how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config.simulate import SimulationConfig
from sdas.data import Frame
from sdas.errors import SimulationError
from sdas.simulate.engines import make_engine
from sdas.simulate.kept import Kept, Made, fingerprint
from sdas.simulate.molecule import Molecule
from sdas.simulate.sampling import Sampler

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
    keep: Path | None = None,
) -> Pool:
    """``config.frames`` frames of a molecule; the same seed makes the same ones.

    Args:
        labels: give each frame the energy and the forces of the engine.
        progress: is told how many frames there are more.
        keep: a file for what was made so far, from which a call goes on that comes after a kill. Whoever calls removes
            it when the frames are safe.

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
    sampler, made = Sampler(molecule, engine, config), Made()
    kept = None if keep is None else Kept(keep, fingerprint(molecule, config, labels))
    if kept is not None and kept.restore(made, sampler) and progress is not None:
        progress(min(len(made.samples), config.frames))
    while len(made.samples) < config.frames:
        sample = next(sampler)
        if sample.fault:
            made.dropped[sample.fault] += 1
            if made.dropped.total() > PATIENCE * config.frames + 20:
                raise SimulationError(_too_many(made.dropped, len(made.samples), config))
            continue
        made.samples.append({"positions": sample.positions, "facts": sample.facts})
        if labels:
            atoms = molecule.atoms(0)
            atoms.positions, atoms.calc = sample.positions, engine
            made.samples[-1] |= {"energy": float(atoms.get_potential_energy()), "forces": np.array(atoms.get_forces())}
        if kept is not None:
            kept.save_at_times(made, sampler)
        if progress is not None:
            progress(1)
    frames = []
    for number, row in enumerate(made.samples[: config.frames]):
        frame = Frame(
            molecule.numbers, row["positions"], None, np.zeros(3, dtype=bool), row.get("energy"), row.get("forces"),
            None, f"{config.engine} {molecule.name}: frame {number}",
            charge=float(molecule.charge), spin=float(molecule.spin),
        )  # fmt: skip
        frames.append((frame, {**facts, **row["facts"]}))
    return Pool(frames, dict(made.dropped))


def _too_many(dropped: Counter[str], kept: int, config: SimulationConfig) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    return (
        f"{dropped.total()} frames were dropped ({told}) while {kept} were kept: lower the temperature "
        f"({config.temperature_k:g} K) or the time step ({config.timestep_fs:g} fs), or take another engine than "
        f"{config.engine}"
    )
