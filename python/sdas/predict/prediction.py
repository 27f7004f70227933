"""From frames to predictions, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdas.data import Frame
from sdas.data.electronic_states import checked_state, one_state_each
from sdas.data.graphs import graph_of, knows_states, refuse_unknown, refuse_untrained
from sdas.errors import SdasError
from sdas.run.model import species_of
from sdas_kernels.graph import NeighborGraph

FloatArray = NDArray[np.float64]
PER_ATOM = ("forces", "features")
UNKNOWN = ". Train on frames with {names}, or leave such frames out"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of B frames with N atoms in all; float64.

    energy [B]: eV. forces [N, 3]: eV/Å. stress [B, 3, 3]: eV/Å³, None unless asked for. features [N, M, C]: the last
    features of every atom, rows by degree and order, None unless asked for.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray | None = None
    features: FloatArray | None = None


def predict(
    model: torch.nn.Module, frames: Sequence[Frame], *, stress: bool = False, features: bool = False
) -> Prediction:
    """Predictions for the frames of one batch, by a model in the mode in which it is.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or anything with its call, `species` and `cutoff`. Features are those of SDAS.

    Raises:
        SdasError: a frame holds an element, or is in a state, that the model does not know, or a number is not finite.
    """
    species, states = species_of(model), knows_states(model)
    for frame in frames:
        refuse_unknown(frame.numbers.tolist(), species, f"{frame.source}: ", UNKNOWN)
        if states:
            refuse_untrained(checked_state(frame.state, frame.numbers, frame.source), model, f"{frame.source}: ")
    weight = next(model.parameters())
    cutoff = float(model.cutoff)  # type: ignore[arg-type]
    batch = NeighborGraph.batch([graph_of(frame, cutoff, weight.dtype, states) for frame in frames]).to(weight.device)
    out = dict(model(batch, forces=True, stress=stress))
    if features:
        out["features"] = _features(model, batch)
    wanted = ["energy", "forces", *(["stress"] if stress else []), *(["features"] if features else [])]
    found = {name: out[name].detach().cpu().numpy().astype(np.float64) for name in wanted}
    _check_finite(found, frames)
    return Prediction(**found)


def predict_batches(
    model: torch.nn.Module, frames: Iterable[Frame], batch_size: int, **wanted: bool
) -> Iterator[tuple[list[Frame], Prediction]]:
    """Batches of a stream of frames, each with its predictions, by a model in eval mode; see :func:`predict`.

    The model is left in the mode in which it came. Frames of one composition with several charges or spins are an
    error, unless the model knows of them.
    """
    if batch_size < 1:
        raise SdasError(f"batch size must be at least 1, got {batch_size}")
    was_training = model.training
    model.eval()
    stream = iter(frames if knows_states(model) else one_state_each(frames))
    try:
        while batch := list(islice(stream, batch_size)):
            yield batch, predict(model, batch, **wanted)
    finally:
        model.train(was_training)


def _features(model: Any, batch: NeighborGraph) -> torch.Tensor:
    kinds = torch.searchsorted(model.species, batch.numbers)  # species are sorted, and none is unknown here
    with torch.no_grad():
        return model.features(batch, batch.edge_vectors(), kinds)[1]


def _check_finite(found: dict[str, FloatArray], frames: Sequence[Frame]) -> None:
    frame_of_atom = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    for name, values in found.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            frame = frames[frame_of_atom[row] if name in PER_ATOM else row]
            raise SdasError(f"{frame.source}: the model's {name} is not finite; its training may have diverged")
