"""All that is looked at in a model, as one document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.interpret.attention import mean_attention
from sdas.interpret.bonds import bonds_of, symbols
from sdas.interpret.contributions import contributions
from sdas.interpret.controls import MARGIN, random_models, same_atoms
from sdas.interpret.coordinate import along_torsion, along_transfer, checked_transfer, chosen_torsion
from sdas.interpret.features import FEWEST_FRAMES, angles_read, invariants
from sdas.interpret.recovery import recovered_bonds
from sdas.run.fingerprint import model_fingerprint

MOST_ATOMS_OF_A_MAP = 64
SEEDS = 19
"""Models of random weights: one more of these is the best of all with a chance of 1 in 20."""


def interpret(
    model: Any,
    frames: Sequence[Frame],
    *,
    seeds: Sequence[int] = range(1, SEEDS + 1),
    torsion: Sequence[int] | None = None,
    transfer: Sequence[int] | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """What an SDAS model looks at, what its parts contribute, and what its features tell, each beside its controls.

    Args:
        frames: structures, labelled or not. Of the same atoms in the same order they also give maps, angles and the
            reaction coordinate.
        seeds: of the models of random weights.
        torsion: atoms a, b, c, d of the reaction coordinate; by default the torsion with the most heavy atoms.
        transfer: atoms i, j, k of it instead, of which j goes over from i to k.

    Returns:
        JSON: "attention", "bonds", "contributions", "angles", "coordinate", "findings"; None stands for what these
        frames do not allow, and "notes" say why.

    Raises:
        SdasError: no frames or seeds, a model without attention, an unknown element, no such torsion or transfer, or
            both.
    """
    if not frames or not seeds:
        raise SdasError("interpret wants at least one frame and one seed of random weights")
    if torsion is not None and transfer is not None:
        raise SdasError("the reaction coordinate is a torsion or a transfer: give one of them")
    model = model.eval()
    controls, first, notes = random_models(model, seeds), frames[0], list[str]()
    document: dict[str, Any] = {
        "model_fingerprint": model_fingerprint(model),
        "frames": len(frames),
        "seeds": list(seeds),
        "margin": MARGIN,
        "bonds": recovered_bonds(model, controls, frames),
        "contributions": contributions(model, frames, batch_size),
        "attention": None,
        "angles": None,
        "coordinate": None,
    }
    if not same_atoms(frames):
        notes.append("The frames differ in their atoms: no maps, angles or reaction coordinate are made of them.")
        if torsion is not None or transfer is not None:
            raise SdasError("a reaction coordinate was asked for, but the frames differ in their atoms")
    else:
        if len(first) <= MOST_ATOMS_OF_A_MAP:
            document["attention"] = {
                "symbols": symbols(first),
                "positions": first.positions.tolist(),
                "bonds": np.argwhere(np.triu(bonds_of(first))).tolist(),
                "maps": mean_attention(model, frames).tolist(),
            }
        else:
            notes.append(f"Maps are drawn of at most {MOST_ATOMS_OF_A_MAP} atoms; these frames have {len(first)}.")
        if first.pbc.any():
            notes.append("Angles and the reaction coordinate are for molecules; these frames are periodic.")
        elif len(frames) < FEWEST_FRAMES:
            notes.append(f"Angles want at least {FEWEST_FRAMES} frames; there are {len(frames)}.")
        else:
            of_controls = [invariants(each, frames, batch_size) for each in controls]
            document["angles"] = angles_read(invariants(model, frames, batch_size), of_controls, frames)
        if transfer is not None:
            moved = checked_transfer(first, transfer)
            document["coordinate"] = along_transfer(model, controls, frames, moved, batch_size)
        elif (chosen := chosen_torsion(first, torsion)) is not None:
            document["coordinate"] = along_torsion(model, controls, frames, chosen, batch_size)
        else:
            notes.append("There is no torsion about a bond outside of rings, so no reaction coordinate.")
    document["findings"], document["notes"] = findings(document), notes
    return document


def findings(document: dict[str, Any]) -> list[str]:
    """What the controls allow to be said, a sentence each."""
    bonds, said = document["bonds"], []
    for name, what in (("mean_of_heads", "The mean over the heads of a layer"), ("best_head", "The best single head")):
        row = bonds[name]
        told = f"{what} tells bonds with an AUC of {_number(row['model'])}"
        said.append(_sentence(told, row["finding"], [bonds["auc_of_distance"]], row["random"]))
    if document["angles"]:
        row = document["angles"]["degrees"]["all degrees"]
        told = f"The features of an atom tell the bond angles at it with R² = {_number(row['model'])}"
        said.append(_sentence(told, row["finding"], [document["angles"]["distances"]], row["random"]))
    kind = (document["coordinate"] or {}).get("kind")
    for name, where in (("scan", f"Along the {kind}"), ("frames", "Among the frames")):
        row = (document["coordinate"] or {}).get(name)
        if row:
            told = f"{where}, the first component of the features follows the {kind} with R² = "
            told += _number(row["model"]["r2"][0])
            random = [each["r2"][0] for each in row["random"]]
            said.append(_sentence(told, row["finding"], [row["distances"]["r2"][0]], random))
    return said


def _sentence(told: str, finding: bool, distances: list[float | None], random: list[float | None]) -> str:
    best = max((each for each in random if each is not None), default=None)
    controls = f"distances alone reach {_number(distances[0])}, random weights at best {_number(best)}"
    if finding:
        return f"{told}; {controls}. That is learned."
    if distances[0] is not None and distances[0] + MARGIN >= 1:
        return f"{told}; {controls}. That is no finding: what distances tell fully nothing can tell better."
    return f"{told}; {controls}. That is no finding: it does not beat both controls."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
