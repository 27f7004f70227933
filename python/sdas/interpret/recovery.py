"""Are covalent bonds seen in the attention? The area under the ROC curve, beside what needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdas.data import Frame
from sdas.interpret.attention import FloatArray, mean_attention, pair_attention
from sdas.interpret.bonds import BoolArray, bonds_by_rdkit, bonds_of, distances_of, roc_auc
from sdas.interpret.controls import beats, same_atoms


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of atoms that see each other. distance `[P]` Å. bonded `[P]`. score `[layers, K, P]`: how much the two
    atoms attend to one another, the mean of both directions."""

    distance: FloatArray
    bonded: BoolArray
    score: FloatArray


def pairs_of(model: Any, frames: Sequence[Frame]) -> Pairs:
    """Pairs within the cutoff: means over frames of the same atoms, else the pairs of all frames.

    In the mean over frames two atoms count as bonded if they are in more than half of the frames.
    """
    cutoff = float(model.cutoff)
    if same_atoms(frames):
        distance = np.mean([distances_of(frame) for frame in frames], axis=0)
        bonded = np.mean([bonds_of(frame) for frame in frames], axis=0) > 0.5
        return _pairs(distance, bonded, mean_attention(model, frames), cutoff)
    parts = [_pairs(distances_of(f), bonds_of(f), pair_attention(model, f), cutoff) for f in frames]
    return Pairs(
        np.concatenate([part.distance for part in parts]),
        np.concatenate([part.bonded for part in parts]),
        np.concatenate([part.score for part in parts], axis=2),
    )


def _pairs(distance: FloatArray, bonded: BoolArray, attention: FloatArray, cutoff: float) -> Pairs:
    near = np.triu(distance < cutoff, 1)
    score = (attention + attention.swapaxes(2, 3)) / 2
    return Pairs(distance[near], bonded[near], score[:, :, near])


def recovered_bonds(model: Any, controls: Sequence[Any], frames: Sequence[Frame]) -> dict[str, Any]:
    """ROC-AUC of the attention against bonds, of the model, of −distance, and of the `controls` of random weights.

    "mean_of_heads" is the best layer's mean over heads; "best_head" the best single head. Controls choose their best
    likewise, so that the choice among many heads favours nobody. AUC are None where all pairs, or none, are bonded.
    """
    pairs = pairs_of(model, frames)
    trained = _aucs(pairs)
    random = [_aucs(pairs_of(control, frames)) for control in controls]
    distance = roc_auc(-pairs.distance, pairs.bonded)
    rdkit = bonds_by_rdkit(frames[0])
    found: dict[str, Any] = {
        "pairs": len(pairs.bonded),
        "bonds": int(pairs.bonded.sum()),
        "rdkit_agrees": None if rdkit is None else bool((rdkit == bonds_of(frames[0])).all()),
        "auc_of_distance": distance,
        "auc_of_layers_and_heads": trained["all"],
    }
    for name in ("mean_of_heads", "best_head"):
        values = [each[name] for each in random]
        found[name] = {
            "model": trained[name],
            "distance": distance,
            "random": values,
            "finding": beats(trained[name], [distance, *values]),
        }
    return found


def _aucs(pairs: Pairs) -> dict[str, Any]:
    layers = [[roc_auc(head, pairs.bonded) for head in layer] for layer in pairs.score]
    means = [roc_auc(layer.mean(0), pairs.bonded) for layer in pairs.score]
    heads = [auc for layer in layers for auc in layer if auc is not None]
    known = [auc for auc in means if auc is not None]
    return {"all": layers, "mean_of_heads": max(known, default=None), "best_head": max(heads, default=None)}
