"""Charge and spin of the frames against what the model will know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sdas.config import Config
from sdas.data import Frame, FrameCache
from sdas.data.electronic_states import CHARGES, SPINS, one_state_each
from sdas.errors import TrainingError

Indices = NDArray[np.int64]
PARTS = ("positive charge", "negative charge", "unpaired electrons")
"""Of a state, each with weights of its own."""


def check_states(config: Config, frames: Sequence[Frame], train: Indices, parts: Mapping[str, Indices]) -> None:
    """Raise an error where the model could not tell frames apart, or has weights that nothing would train.

    Without ``model.charge_spin``: two frames of one composition, in ``train`` or ``parts``, name → indices of frames,
    differ in charge or spin. With it: all training frames are neutral singlets, or one of ``parts`` has a kind of state
    that no training frame has.
    """
    if not config.model.charge_spin:
        used = np.concatenate([train, *parts.values()])
        states = _states(frames, used)
        if any(len(np.unique(column[~np.isnan(column)])) > 1 for column in states.T):
            for _ in one_state_each(frames[int(index)] for index in used):
                pass
        return
    known = _present(frames, train).any(0)
    if not known.any():
        raise TrainingError(
            "model.charge_spin is true, but no training frame states a charge or a spin beyond those of neutral "
            f"singlets: set it to false, or name charges {' or '.join(CHARGES)}, multiplicities {' or '.join(SPINS)}; "
            "convert frames again that an earlier version converted, which kept neither"
        )
    for part, indices in parts.items():
        strange = _present(frames, indices) & ~known
        if strange.any():
            row, kind = np.argwhere(strange)[0]
            count, first = int(strange[:, kind].sum()), frames[int(indices[row])].source
            raise TrainingError(
                f"{count} of the {part} frames have {PARTS[kind]}, which no training frame has, first {first}: the "
                "model would take them for neutral singlets. Divide the frames otherwise (data.split.seed, method or "
                "indices), or add frames for training"
            )


def _present(frames: Sequence[Frame], indices: Indices) -> NDArray[np.bool_]:
    """Which of :data:`PARTS` the states of these frames have, [frames, 3]."""
    charge, spin = _states(frames, indices).T
    return np.stack([charge > 0, charge < 0, ~np.isnan(spin) & (spin != 1)], axis=1)


def _states(frames: Sequence[Frame], indices: Iterable[int]) -> NDArray[np.float64]:
    """Charge and spin, [frames, 2], NaN where a frame states none."""
    if isinstance(frames, FrameCache):
        return frames.electronic_states()[np.asarray(indices, dtype=np.int64)]
    stated = ((frame.charge, frame.spin) for frame in (frames[int(index)] for index in indices))
    known = [np.nan if value is None else value for value in chain.from_iterable(stated)]
    return np.array(known, dtype=np.float64).reshape(-1, 2)
