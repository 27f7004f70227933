"""What an adapter gives the worker, and what both sides mean by a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = ("forces", "training")
"""`forces`: energies and forces, nothing kept for second derivatives. `training`: the gradient by all weights of a mean
square loss on energies per atom and forces, optimizer excluded."""


@dataclass(frozen=True)
class Settings:
    """What every model is asked for; the rest is each model's own recommendation.

    variant: one of the adapter's `VARIANTS`. channels of every degree up to lmax, layers of messages, cutoff in Å,
    neighbors: mean number per atom, by which models normalize sums, species: atomic numbers, step: what it will do.
    """

    variant: str
    step: str
    channels: int
    lmax: int = 2
    layers: int = 2
    cutoff: float = 5.0
    neighbors: float = 54.0
    species: tuple[int, ...] = (1, 6, 8)
    seed: int = 0


@dataclass
class Model:
    """A built model.

    load: from the arrays of `peers.systems.save` to whatever `step` takes; prepares the neighbor list, is not timed.
    step: one step on it; returns energies [B] and forces [N, 3] for "forces", all weights' gradient for "training".
    parameters: how many numbers are trained. packages: whose versions the result should say.
    """

    load: Callable[[dict[str, np.ndarray]], Any]
    step: Callable[[Any], tuple[Any, ...]]
    parameters: int
    packages: tuple[str, ...]
