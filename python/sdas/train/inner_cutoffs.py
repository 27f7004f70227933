"""Inner cutoffs of models, from the frames that train them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sdas.data import Frame
from sdas.data.graphs import refuse_unknown
from sdas.data.shortest_distances import shortest_distances
from sdas.errors import SdasError
from sdas.run.model import species_of
from sdas_kernels.nn import SDAS, InnerCutoff


def cover(models: Iterable[nn.Module], frames: Sequence[Frame], indices: Sequence[int]) -> None:
    """Have no atoms of those frames within the inner cutoff of a model that has one; cutoffs never become longer."""
    guarded = [model for model in models if isinstance(getattr(model, "repulsion", None), InnerCutoff)]
    if guarded:
        shortest = shortest_distances(frames, indices, float(guarded[0].cutoff))  # type: ignore[arg-type]
        for model in guarded:
            model.repulsion.cover(shortest)  # type: ignore[operator, union-attr]


def with_inner_cutoff(model: nn.Module, frames: Sequence[Frame]) -> SDAS:
    """A trained model with an inner cutoff for every pair of elements, from the frames that trained it.

    Its weights stay. Energies and forces of these frames are the same to the last bit, and so are those of all others
    without closer atoms. A model that has inner cutoffs keeps those that are shorter.

    Raises SdasError for what is no SDAS model, for one with another repulsion, whose network has learned what that
    leaves, without frames, and for frames of unknown elements.
    """
    if type(model) is not SDAS or model.config.get("repulsion") not in (None, "inner-cutoff"):
        kind = model.config["repulsion"] if isinstance(model, SDAS) else type(model).__name__
        raise SdasError(f"an inner cutoff can be added to an SDAS model without repulsion, got {kind}")
    if not len(frames):
        raise SdasError("an inner cutoff comes from frames, got none")
    numbers = {z for frame in frames for z in frame.numbers.tolist()}
    refuse_unknown(numbers, species_of(model), "", ": name the frames that trained it")
    weight, config = model.embedding.weight, {**model.config, "repulsion": "inner-cutoff"}
    made = SDAS(**config).to(weight.device, weight.dtype)
    state: dict[str, Any] = {name: tensor for name, tensor in model.state_dict().items() if name != "_extra_state"}
    made.load_state_dict({**made.repulsion.state_dict(prefix="repulsion."), **state})  # type: ignore[union-attr]
    cover([made], frames, range(len(frames)))
    return made.train(model.training)
