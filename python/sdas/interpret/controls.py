"""What needs no training: models of random weights, and distances alone. Only what beats both is a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sdas.data import Frame
from sdas_kernels.nn import SDAS

MARGIN = 0.01
"""By how much a score (an AUC, an R²) must be better than every control."""


def random_models(model: Any, seeds: Sequence[int]) -> list[Any]:
    """Models of the same shape with the weights that an untrained one has; PyTorch's own random state is left alone."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = SDAS(**model.config)
        found.append(made.to(next(model.parameters()).dtype).eval().requires_grad_(False))
    return found


def beats(score: float | None, controls: Sequence[float | None]) -> bool:
    """Whether a score is better than every control, by more than :data:`MARGIN`; not where one is unknown."""
    return score is not None and all(other is not None and score > other + MARGIN for other in controls)


def same_atoms(frames: Sequence[Frame]) -> bool:
    """Whether all frames have the same atoms in the same order."""
    return all(frame.numbers.tolist() == frames[0].numbers.tolist() for frame in frames)
