"""The model under test in both precisions, and the frames on which it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sdas.data import Frame
from sdas.data.electronic_states import checked_state
from sdas.data.graphs import knows_states, refuse_unknown, refuse_untrained
from sdas.errors import SdasError
from sdas.interpret.bonds import FloatArray, distances_of
from sdas.md.forces import prepared_model
from sdas.predict import Prediction, predict_batches
from sdas.run.model import species_of

BATCH = 16


@dataclass(frozen=True, eq=False)
class Subject:
    """exact, single: the model in float64 and in float32. frames: structures, labelled or not, at least one."""

    exact: Any
    single: Any
    frames: Sequence[Frame]

    @classmethod
    def of(cls, model: torch.nn.Module, frames: Sequence[Frame]) -> Subject:
        """Copies of a model in both precisions.

        Raises SdasError without frames, and for an element or a state that the model does not know.
        """
        if not frames:
            raise SdasError("validate wants at least one frame")
        for frame in frames:
            refuse_unknown(frame.numbers.tolist(), species_of(model), f"{frame.source}: ", "; leave such frames out")
            if knows_states(model):
                refuse_untrained(checked_state(frame.state, frame.numbers, frame.source), model, f"{frame.source}: ")
        exact, _ = prepared_model(model, torch.float64, None)
        single, _ = prepared_model(model, torch.float32, None)
        return cls(exact, single, frames)

    @property
    def first(self) -> Frame:
        """The structure that is scanned, relaxed and simulated."""
        return self.frames[0]

    def predicted(self, frames: Sequence[Frame], model: Any = None, stress: bool = False) -> Prediction:
        """Predictions in float64, or by another model; raises SdasError where they are not finite."""
        found = [p for _, p in predict_batches(model or self.exact, frames, BATCH, stress=stress)]
        stresses = [p.stress for p in found if p.stress is not None]
        return Prediction(
            np.concatenate([p.energy for p in found]),
            np.concatenate([p.forces for p in found]),
            np.concatenate(stresses) if stresses else None,
        )

    def energies(self, positions: Sequence[FloatArray]) -> FloatArray:
        """Energies of the first frame with its atoms at these positions."""
        return self.predicted([moved(self.first, each) for each in positions]).energy

    def shortest(self) -> dict[tuple[int, int], float]:
        """The shortest distance in the frames, Å, of every pair of elements that meets within the cutoff."""
        found: dict[tuple[int, int], float] = {}
        for frame in self.frames:
            distances = distances_of(frame)
            for i, j in np.argwhere(np.triu(distances < float(self.exact.cutoff), 1)).tolist():
                pair = sorted((int(frame.numbers[i]), int(frame.numbers[j])))
                key = pair[0], pair[1]
                found[key] = min(found.get(key, np.inf), float(distances[i, j]))
        return found


def moved(frame: Frame, positions: FloatArray) -> Frame:
    """A frame with its atoms elsewhere, without labels."""
    return replace(frame, positions=np.asarray(positions), energy=None, forces=None, stress=None)
