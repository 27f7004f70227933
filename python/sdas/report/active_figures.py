"""The pictures of the page about a run of active learning; each is an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from sdas.data import Frame
from sdas.predict.calibration import LEVELS
from sdas.report.svg import ACCENT, INK, MUTED, SECOND, new_axes, style, to_svg

BONDED = 1.25
"""Atoms closer than so many times the sum of their covalent radii are joined by a line."""


def errors(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    """Force errors against the labels that train; None without any."""
    known = [row for row in rounds if row["force_mae_mev_per_ang"] is not None]
    if not known:
        return None
    labels = [row["labels"] for row in known]
    with style():
        figure, axes = new_axes()
        for title, color in (("MAE", ACCENT), ("RMSE", SECOND)):
            values = [row[f"force_{title.lower()}_mev_per_ang"] for row in known]
            axes.plot(labels, values, color=color, marker="o", markersize=3.5, label=title)
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")
        axes.set(xlabel="labels", ylabel="force error (meV/Å)")
        return to_svg(figure, "active-errors", "Force errors against labels")


def uncertainty(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    """Mean and largest deviation over the pool against the labels that train; None without any."""
    known = [row for row in rounds if row["pool"]["frames"]]
    if not known:
        return None
    labels, unit = [row["labels"] for row in known], known[0]["pool"]["unit"]
    with style():
        figure, axes = new_axes()
        for name, color in (("mean", ACCENT), ("largest", SECOND)):
            axes.plot(labels, [row["pool"][name] for row in known], color=color, marker="o", markersize=3.5, label=name)
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")
        axes.set(xlabel="labels", ylabel=f"σ ({unit})")
        return to_svg(figure, "active-uncertainty", "Uncertainty over the pool against labels")


def reliability(observed: Mapping[str, Sequence[float]]) -> str | None:
    """The part of errors within intervals, against the part that should be; None without any."""
    if not observed:
        return None
    with style():
        figure, axes = new_axes(height=3.7)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for color, (name, parts) in zip((ACCENT, SECOND, INK), observed.items(), strict=False):
            axes.plot(LEVELS, parts, color=color, marker="o", markersize=3, label=name)
        axes.legend(loc="upper left")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="expected part", ylabel="observed part")
        return to_svg(figure, "active-reliability", "Reliability of intervals")


def molecule(frame: Frame, size: int = 120) -> str:
    """Atoms as discs, seen along the direction in which they reach least far."""
    center = frame.positions - frame.positions.mean(axis=0)
    _, _, axes = np.linalg.svd(center, full_matrices=True)
    seen = center @ axes.T
    reach = float(np.abs(seen[:, :2]).max()) + 1.0
    scale = size / (2 * reach)
    x, y = (scale * (seen[:, axis] + reach) for axis in (0, 1))
    radii = covalent_radii[frame.numbers]
    distances = np.linalg.norm(center[:, None] - center, axis=-1)
    pairs = np.argwhere(np.triu(distances < BONDED * (radii[:, None] + radii), 1)).tolist()
    parts = [
        f'<line x1="{x[i]:.1f}" y1="{y[i]:.1f}" x2="{x[j]:.1f}" y2="{y[j]:.1f}" stroke="var(--muted)" '
        f'stroke-width="{0.25 * scale:.1f}"/>'
        for i, j in pairs
    ]
    for atom in np.argsort(seen[:, 2]).tolist():
        color = "".join(f"{round(255 * part):02x}" for part in jmol_colors[frame.numbers[atom]])
        parts.append(
            f'<circle cx="{x[atom]:.1f}" cy="{y[atom]:.1f}" r="{0.55 * radii[atom] * scale:.1f}" fill="#{color}" '
            'stroke="var(--muted)" stroke-width=".6"/>'
        )
    name = escape(frame.source, quote=True)
    elements = " ".join(f"{chemical_symbols[number]}{count}" for number, count in frame.composition)
    return f'<svg role="img" aria-label="{elements}, {name}" viewBox="0 0 {size} {size}">{"".join(parts)}</svg>'
