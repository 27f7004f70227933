"""What each part of a model is good for: its weights are set to zero, and what changes is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sdas.data import Frame
from sdas.interpret.attention import attention_modules
from sdas.predict import predict_batches
from sdas_kernels.nn.paper import PaperLayer
from sdas_kernels.paths import Paths

Part = tuple[str, str, list[torch.Tensor]]
"""Kind, name, and the weights (views) that are set to zero."""


def parts_of(model: Any) -> Iterator[tuple[int, Part]]:
    """The parts of every layer, counted from 1.

    degree: the values of one degree l. path: the path l1 ⊗ l2 → l3. query: what the attention logit reads. Of the
    paper's layer: the degrees of its products, and the directions in its logits.
    """
    for layer, module in enumerate(attention_modules(model), 1):
        yield from ((layer, part) for part in _parts(module))


def _parts(module: Any) -> Iterator[Part]:
    if module.direction_query is not None:
        yield "query", "direction of the neighbor", [module.direction_query.weight]
    if isinstance(module, PaperLayer):
        for l in range(module.lmax + 1):
            yield "degree", f"products of degree {l}", [module.mixing.weight[l]]
    if not hasattr(module, "value"):
        return
    if module.has_attention:
        query, _, radial, _ = [slice(end - size, end) for end, size in _ends(module.logit_sizes)]
        for name, rows in (("elements and environment", query), ("distance of the neighbor", radial)):
            if rows.start < rows.stop:
                yield "query", name, [module.logits.weight[rows], module.logits.bias[rows]]
    for l in range(module.value_lmax + 1):
        yield "degree", f"values of degree {l}", [module.value.weight[l]]
    paths: Paths = module.paths
    for row, (l1, l2, l3) in enumerate(paths.all):
        if module.path_weight is not None:
            weight = module.path_weight[row]
        else:
            place, width = paths.to_degree(l3).index((l1, l2, l3)), module.channels
            weight = module.mixing[l3][place * width : (place + 1) * width]
        yield "path", f"{l1} ⊗ {l2} → {l3}", [weight]


def _ends(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    end = 0
    for size in sizes:
        end += size
        yield end, size


@contextmanager
def without(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Inside the block these weights are zero."""
    with torch.no_grad():
        kept = [weight.clone() for weight in weights]
        try:
            for weight in weights:
                weight.zero_()
            yield
        finally:
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


def contributions(model: Any, frames: Sequence[Frame], batch_size: int) -> list[dict[str, Any]]:
    """A row per part: how much the predictions change without it, and their errors where frames are labelled.

    energy_change_mev_per_atom is the mean absolute change about the mean change, since a constant says nothing of
    structures; force_change_mev_per_ang that of components. Errors are mean absolute ones, energies again about the
    mean error; None without labels.
    """
    full = _predicted(model, frames, batch_size)
    rows = [{"layer": None, "kind": "model", "part": "the model whole", **_differences(full, full, frames)}]
    for layer, (kind, name, weights) in parts_of(model):
        with without(weights):
            less = _predicted(model, frames, batch_size)
        rows.append({"layer": layer, "kind": kind, "part": name, **_differences(less, full, frames)})
    return rows


def _predicted(model: Any, frames: Sequence[Frame], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    found = [predicted for _, predicted in predict_batches(model, frames, batch_size)]
    return np.concatenate([p.energy for p in found]), np.concatenate([p.forces for p in found])


def _differences(
    less: tuple[np.ndarray, np.ndarray], full: tuple[np.ndarray, np.ndarray], frames: Sequence[Frame]
) -> dict[str, float | None]:
    counts = np.array([len(frame) for frame in frames])
    energy = np.array([np.nan if frame.energy is None else frame.energy for frame in frames])
    forces = [np.full((len(f), 3), np.nan) if f.forces is None else f.forces for f in frames]
    return {
        "energy_change_mev_per_atom": _about_mean((less[0] - full[0]) / counts),
        "force_change_mev_per_ang": _mean_absolute(less[1] - full[1]),
        "energy_error_mev_per_atom": _about_mean((less[0] - energy) / counts),
        "force_error_mev_per_ang": _mean_absolute(less[1] - np.concatenate(forces)),
    }


def _about_mean(differences: np.ndarray) -> float | None:
    known = differences[np.isfinite(differences)]
    return float(1000 * np.abs(known - known.mean()).mean()) if len(known) else None


def _mean_absolute(differences: np.ndarray) -> float | None:
    known = differences[np.isfinite(differences)]
    return float(1000 * np.abs(known).mean()) if len(known) else None
