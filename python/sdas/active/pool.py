"""The frames that may be labeled, in a cache in the run's folder: of a file, or simulated."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sdas.active.folder import SIMULATED
from sdas.active.shapes import overlapping
from sdas.config import Config
from sdas.config.active import HIDDEN
from sdas.data import Frame, FrameCache, read_frames, write_cache
from sdas.data.isolated_atoms import is_isolated
from sdas.errors import ActiveError
from sdas.run.folder import POOL
from sdas.simulate import from_sequence, from_smiles, simulate_pool


def make_pool(config: Config) -> dict[str, Any]:
    """Write the pool of a run to its folder, unless it is there, and tell what was dropped.

    Frames with overlapping atoms are dropped. Labels that frames have are kept for the oracle ``hidden`` only.

    Raises:
        ActiveError: no pool is named, or fewer frames are left than a round selects, or hidden labels are missing.
        sdas.errors.SdasError: as readers and simulations do.
    """
    target, dropped = Path(config.run_dir) / POOL, Counter[str]()
    if not target.exists():
        write_cache(_usable(_source(config, dropped), config, dropped), target)
        (Path(config.run_dir) / SIMULATED).unlink(missing_ok=True)
    frames = len(FrameCache.open(target))
    wanted = config.active.labels_per_round
    if frames < wanted:
        raise ActiveError(
            f"the pool has {frames} frames that can be used, fewer than active.labels_per_round, {wanted}: give a "
            "larger pool, or select fewer (--labels-per-round)"
        )
    return {"frames": frames, "dropped": dict(dropped)}


def _source(config: Config, dropped: Counter[str]) -> Iterable[Frame]:
    active = config.active
    if active.pool is not None:
        return read_frames(active.pool, **config.data.reading().model_dump(), require=())
    if active.smiles is None and active.sequence is None:
        raise ActiveError(
            "no pool to select from: name a file of frames, as in 'sdas active start.yaml pool.extxyz', or a molecule "
            "(--smiles CCO, --sequence ACE-ALA-NME)"
        )
    return _simulated(config, dropped)


def _simulated(config: Config, dropped: Counter[str]) -> list[Frame]:
    active, settings = config.active, config.active.simulation
    if active.smiles is not None:
        molecule = from_smiles(active.smiles, settings.conformers, settings.seed)
    else:
        assert active.sequence is not None
        molecule = from_sequence(active.sequence, settings.conformers, settings.seed)
    for remark in molecule.remarks:
        print(f"note: {remark}", file=sys.stderr)
    with tqdm(total=settings.frames, desc="simulate", unit="frame", disable=None) as bar:
        pool = simulate_pool(molecule, settings, progress=bar.update, keep=Path(config.run_dir) / SIMULATED)
    dropped.update(pool.dropped)
    return [frame for frame, _ in pool.frames]


def _usable(frames: Iterable[Frame], config: Config, dropped: Counter[str]) -> Iterator[Frame]:
    hidden = config.active.oracle == HIDDEN
    for frame in frames:
        if is_isolated(frame):
            dropped["isolated atom"] += 1
        elif overlapping(frame, config.active.overlap):
            dropped["overlap"] += 1
        elif not hidden:
            yield replace(frame, energy=None, forces=None, stress=None)
        elif frame.energy is None or frame.forces is None:
            raise ActiveError(f"{frame.source}: has no energy or no forces, which the oracle hidden would uncover")
        else:
            yield frame
