"""Frames of ethanol, shaken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdas.data import Frame


@pytest.fixture
def ethanol_frames(systems: dict[str, Any]) -> list[Frame]:
    """24 frames with energies and forces of springs to the first positions."""
    atoms, rng, frames = systems["molecule"], np.random.default_rng(3), []
    for number in range(24):
        shift = rng.normal(scale=0.08, size=(len(atoms), 3))
        energy = float((shift**2).sum())
        frames.append(
            Frame(
                atoms.numbers.astype(np.int64), atoms.positions + shift, None, np.zeros(3, dtype=bool), energy,
                -2 * shift, None, f"shaken: frame {number}",
            )
        )  # fmt: skip
    return frames
