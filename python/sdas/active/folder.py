"""What lies where in the folder of a run of active learning.

config.yaml  run.json  split.json  rounds.jsonl      the settings, and the acts so far
pool/                                                a cache of the frames that may be labeled
start/ or frames/                                    caches of the frames to begin with
labels/                                              the store of labels
rounds/000/frames/                                   what the first ensemble trains on
rounds/000/pool/                                     the pool with the frames that the round added to it
rounds/000/members/0/                                a training run, and what its model says of the pool
model/                                               the first member of the last ensemble
"""

from __future__ import annotations

from pathlib import Path

from sdas.run.folder import FRAMES, POOL, ROUNDS

TASK = "task.json"  # what a member has to do, beside its config.yaml
LOG = "log.txt"  # what a member says that is a process of its own
MEMBERS = "members"
SIMULATED = "simulated.json"  # what of the pool is made so far


def round_folder(run: Path, number: int) -> Path:
    """The folder of a round, from 0."""
    return run / ROUNDS / f"{number:03d}"


def round_frames(run: Path, number: int) -> Path:
    """The cache that the ensemble of a round trains on."""
    return round_folder(run, number) / FRAMES


def round_pool(run: Path, number: int) -> Path:
    """The cache of the pool of a round that adds frames to it."""
    return round_folder(run, number) / POOL


def member_folder(run: Path, number: int, member: int) -> Path:
    """The folder of a member of the ensemble of a round."""
    return round_folder(run, number) / MEMBERS / str(member)


def member_folders(run: Path, number: int, members: int) -> list[Path]:
    """Those of all members."""
    return [member_folder(run, number, member) for member in range(members)]
