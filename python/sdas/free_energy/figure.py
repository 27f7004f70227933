"""The picture of a free energy: a curve with error bars, or a map; beside it the reference, where it is reweighted."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdas.free_energy.landscape import Landscape
from sdas.free_energy.reweighting import FEWEST, Reweighting

MODEL, REFERENCE = "C0", "C1"


def landscape_figure(landscape: Landscape, reweighting: Reweighting | None = None) -> bytes:
    """SVG."""
    names = [f"{name} ({unit})" if unit else name for name, unit in zip(landscape.names, landscape.units, strict=True)]
    with mpl.rc_context({"svg.hashsalt": "free energy", "axes.spines.right": False, "axes.spines.top": False}):
        figure = Figure(layout="constrained")
        if len(names) == 2:
            _maps(figure, landscape, reweighting, names)
        elif reweighting is None:
            figure.set_size_inches(4.6, 3.4)
            _curve(figure.subplots(), landscape)
        else:
            figure.set_size_inches(4.6, 6.8)
            curves, difference, frames = figure.subplots(3, sharex=True, height_ratios=[3, 2, 1.2])
            _curve(curves, landscape, "model")
            _reference(curves, landscape, reweighting)
            _difference(difference, landscape, reweighting)
            _frames(frames, landscape, reweighting)
        if len(names) == 1:
            figure.axes[-1].set(xlabel=names[0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        return buffer.getvalue()


def _curve(axes: Axes, landscape: Landscape, label: str | None = None) -> None:
    """With its standard error, and each group in grey."""
    for each in landscape.groups:
        shift = (landscape.mean - each)[landscape.known].mean()
        axes.plot(landscape.centers[0], each + shift, color="0.8", linewidth=0.7)
    style: dict[str, Any] = {"fmt": "o-", "markersize": 3, "linewidth": 1.2, "color": MODEL}
    axes.errorbar(landscape.centers[0], landscape.mean, landscape.error, label=label, **style)
    axes.set(ylabel="free energy (k_B T)")


def _reference(axes: Axes, landscape: Landscape, reweighting: Reweighting) -> None:
    curve, _ = reweighting.reference(landscape)
    style: dict[str, Any] = {"fmt": "s--", "markersize": 3, "linewidth": 1.2, "color": REFERENCE}
    axes.errorbar(landscape.centers[0], curve, reweighting.error, label="reference, reweighted", **style)
    axes.legend(frameon=False, fontsize=8)


def _difference(axes: Axes, landscape: Landscape, reweighting: Reweighting) -> None:
    axes.axhline(0, color="0.7", linewidth=0.8)
    low, high = reweighting.interval
    axes.fill_between(landscape.centers[0], low, high, color=REFERENCE, alpha=0.25, linewidth=0)
    axes.plot(landscape.centers[0], reweighting.difference, "s-", color=REFERENCE, markersize=3, linewidth=1.2)
    axes.set(ylabel="reference − model\n(k_B T, 95 %)")


def _frames(axes: Axes, landscape: Landscape, reweighting: Reweighting) -> None:
    width = float(landscape.centers[0][1] - landscape.centers[0][0])
    axes.bar(landscape.centers[0], reweighting.frames, width, color="0.85")
    axes.bar(landscape.centers[0], reweighting.effective, width * 0.7, color=REFERENCE)
    axes.axhline(FEWEST, color="0.3", linewidth=0.8, linestyle=":")
    axes.set(ylabel="frames,\neffective")


def _maps(figure: Figure, landscape: Landscape, reweighting: Reweighting | None, names: list[str]) -> None:
    shown = {"free energy (k_B T)": landscape.mean}
    if reweighting is not None:
        shown["reference − model (k_B T)"] = reweighting.difference
    figure.set_size_inches(4.6 * len(shown), 3.4)
    for axes, (label, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        mesh = axes.pcolormesh(*landscape.centers, values.T, shading="nearest", cmap="viridis")
        figure.colorbar(mesh, label=label)
        axes.set(xlabel=names[0], ylabel=names[1])
