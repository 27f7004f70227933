"""The page of interpret.json: what a model looks at, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdas.documents import read_document
from sdas.files import as_argument, write_text
from sdas.report.figures import DENSITY_RGB
from sdas.report.sheet import Section, render_sheet
from sdas.report.svg import ACCENT, INK, MUTED, SECOND, new_axes, style, to_svg
from sdas.run.folder import INTERPRETATION_NUMBERS, INTERPRETATION_PAGE

RANDOM = ("random, mean", "random, best")
FEWER_NAMES = 24
"""With more atoms than this a map has no names along its sides."""


def write_interpretation(folder: str | Path) -> Path:
    """Write interpret.html beside the interpret.json in a folder; raises SdasError if that cannot be read."""
    place = Path(folder)
    advice = f"sdas interpret MODEL --data FRAMES --out {as_argument(place)} writes it"
    document = read_document(place / INTERPRETATION_NUMBERS, advice=advice)
    lead = [f"{document['model']}, looked at on {document['frames']} frames of {document['data']}"]
    sections = [_findings(document), _bonds(document), _maps(document), _contributions(document)]
    sections += [_angles(document), _coordinate(document)]
    text = render_sheet("What the model looks at", lead, [section for section in sections if section])
    write_text(place / INTERPRETATION_PAGE, text)
    return place / INTERPRETATION_PAGE


def _findings(document: dict[str, Any]) -> Section:
    rule = (
        "Each score stands beside two controls: distances alone, and models of the same shape with random weights. "
        f"Only what is better than every control, by more than {document['margin']}, is called learned. "
        f"One more random model would be by a chance of 1 in {len(document['seeds']) + 1} at most."
    )
    return Section("Findings", [rule, *document["findings"], *document["notes"]])


def _bonds(document: dict[str, Any]) -> Section:
    bonds = document["bonds"]
    names = {"mean_of_heads": "mean over heads, best layer", "best_head": "best single head"}
    rows = [
        [title, bonds[name]["model"], bonds[name]["distance"], *_best(bonds[name]["random"]), _verdict(bonds[name])]
        for name, title in names.items()
    ]
    text = [
        f"{bonds['bonds']} of {bonds['pairs']} pairs within the cutoff are bonded, by covalent radii. "
        "The area under the ROC curve is the chance that a bonded pair attends more than one that is not.",
    ]
    if bonds["rdkit_agrees"] is not None:
        text.append(f"RDKit finds {'the same' if bonds['rdkit_agrees'] else 'other'} bonds in the first frame.")
    columns = ["score", "model", "distance", *RANDOM, "verdict"]
    return Section("Bonds in the attention", text, columns, rows)


def _maps(document: dict[str, Any]) -> Section | None:
    attention = document["attention"]
    if attention is None:
        return None
    maps, pictures = np.array(attention["maps"]), {}
    for number, layer in enumerate(maps, 1):
        pictures[f"Layer {number}, mean over heads"] = _map(layer.mean(0), attention["symbols"], f"map-{number}")
        pictures[f"Layer {number}, over the structure"] = _structure(layer.mean(0), attention, f"structure-{number}")
        pictures[f"Layer {number}, every head"] = _heads(layer, f"heads-{number}")
    text = ["Rows attend to columns. Darker is more, each picture to its own maximum; means over the frames."]
    return Section("Attention", text, pictures=pictures)


def _contributions(document: dict[str, Any]) -> Section:
    rows = [
        [
            "–" if row["layer"] is None else f"layer {row['layer']}",
            row["part"],
            row["energy_change_mev_per_atom"],
            row["force_change_mev_per_ang"],
            row["energy_error_mev_per_atom"],
            row["force_error_mev_per_ang"],
        ]
        for row in document["contributions"]
    ]
    text = [
        "Weights of one part at a time are set to zero; the model is not trained again. "
        "The numbers tell what this model relies on, not what another could do without the part.",
    ]
    columns = ["layer", "without", "ΔE, meV/atom", "ΔF, meV/Å", "error of E, meV/atom", "error of F, meV/Å"]
    return Section("What the parts contribute", text, columns, rows)


def _angles(document: dict[str, Any]) -> Section | None:
    angles = document["angles"]
    if angles is None:
        return None
    rows = [
        [name, row["model"], angles["distances"], *_best(row["random"]), _verdict(row)]
        for name, row in angles["degrees"].items()
    ]
    text = [
        f"R² of a straight line from the invariants of an atom's last features to the bond angles at it, on frames "
        f"that were not fitted; the mean over {angles['kinds']} kinds of angles."
    ]
    columns = ["features", "model", "distances", *RANDOM, "verdict"]
    return Section("Angles in the features", text, columns, rows)


def _coordinate(document: dict[str, Any]) -> Section | None:
    coordinate = document["coordinate"]
    if coordinate is None:
        return None
    rows, pictures = [], {}
    for name, title in (("scan", "rigid scan"), ("frames", "the frames")):
        if name not in coordinate:
            continue
        part = coordinate[name]
        for k in range(len(part["model"]["r2"])):
            others = [each["r2"][k] for each in part["random"]]
            rows.append(
                [f"{title}, component {k + 1}", part["model"]["r2"][k], part["distances"]["r2"][k], *_best(others)]
            )
        pictures[f"First components over the {coordinate['kind']}, {title}"] = _components(coordinate, name)
    atoms = ", ".join(map(str, coordinate["atoms"]))
    told = f"The {coordinate['kind']} of atoms {atoms}. R² of a principal component of the features as "
    text = [told + ("a + b cos φ + c sin φ." if coordinate["kind"] == "torsion" else "a + b ξ.")]
    columns = ["component", "model", "distances", *RANDOM]
    return Section("Reaction coordinate", text, columns, rows, pictures=pictures)


def _verdict(row: dict[str, Any]) -> str:
    return "learned" if row["finding"] else "no finding"


def _best(scores: Sequence[float | None]) -> list[float | None]:
    """The mean and the best of what random weights reach, as under :data:`RANDOM`."""
    known = [score for score in scores if score is not None]
    return [float(np.mean(known)), max(known)] if known else [None, None]


def _shades(values: np.ndarray) -> np.ndarray:
    """A picture `[.., 4]` in which transparency carries the value."""
    pixels = np.zeros((*values.shape, 4))
    pixels[..., :3] = DENSITY_RGB
    pixels[..., 3] = values / max(float(values.max()), 1e-12)
    return pixels


def _map(values: np.ndarray, symbols: Sequence[str], name: str) -> str:
    with style():
        figure, axes = new_axes(height=3.7)
        axes.imshow(_shades(values), interpolation="nearest")
        axes.grid(False)
        if len(symbols) <= FEWER_NAMES:
            labels = [f"{symbol}{k}" for k, symbol in enumerate(symbols)]
            axes.set_xticks(range(len(labels)), labels)
            axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="attended atom", ylabel="atom that attends")
        return to_svg(figure, name, "Attention between atoms")


def _heads(layer: np.ndarray, name: str) -> str:
    """All heads of a layer side by side, each to its own maximum."""
    heads, atoms = layer.shape[:2]
    wide = int(np.ceil(np.sqrt(heads)))
    tall = -(-heads // wide)
    canvas = np.zeros((tall * (atoms + 1) - 1, wide * (atoms + 1) - 1))
    for k, values in enumerate(layer):
        row, column = (atoms + 1) * (k // wide), (atoms + 1) * (k % wide)
        canvas[row : row + atoms, column : column + atoms] = values / max(float(values.max()), 1e-12)
    with style():
        figure, axes = new_axes(height=3.7)
        axes.imshow(_shades(canvas), interpolation="nearest")
        axes.set_axis_off()
        return to_svg(figure, name, "Attention between atoms, head by head")


def _structure(values: np.ndarray, attention: dict[str, Any], name: str) -> str:
    """Atoms in the plane in which they spread most, lines as strong as their attention, bonds drawn thin."""
    positions = np.array(attention["positions"])
    centered = positions - positions.mean(0)
    places = centered @ np.linalg.svd(centered, full_matrices=False)[2][: min(2, len(positions))].T
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    pairs = (values + values.T) / 2
    top = max(float(pairs.max()), 1e-12)
    with style():
        figure, axes = new_axes(height=3.7)
        for i, j in np.argwhere(np.triu(pairs, 1) > 0.02 * top).tolist():
            strength = pairs[i, j] / top
            axes.plot(*places[[i, j]].T, color=DENSITY_RGB, alpha=strength, linewidth=9 * strength)
        for i, j in attention["bonds"]:
            axes.plot(*places[[i, j]].T, color=INK, linewidth=0.8)
        for k, (x, y) in enumerate(places):
            axes.text(x, y, f"{attention['symbols'][k]}{k}", ha="center", va="center", color=SECOND, fontsize=9)
        axes.set(aspect="equal")
        axes.margins(0.12)
        axes.set_axis_off()
        return to_svg(figure, name, "Attention drawn over the structure; thin lines are bonds")


def _components(coordinate: dict[str, Any], name: str) -> str:
    part, kind = coordinate[name], coordinate["kind"]
    values = np.array(part["values"])
    order = np.argsort(values)
    marker = "" if name == "scan" else "."
    shown = [
        (part["model"], ACCENT, "model"),
        (part["random"][0], MUTED, "random"),
        (part["distances"], SECOND, "dist."),
    ]
    with style():
        figure, axes = new_axes()
        for scores, color, label in shown:
            first = np.array(scores["components"][0])[order]
            line = "-" if name == "scan" else ""
            scaled = first / max(float(np.abs(first).max()), 1e-12)
            axes.plot(values[order], scaled, color=color, label=label, marker=marker, linestyle=line)
        axes.legend(loc="best")
        axes.set(xlabel=f"{kind} ({coordinate['unit']})", ylabel="first component, scaled")
        return to_svg(figure, f"components-{name}", f"First principal component of the features over the {kind}")
