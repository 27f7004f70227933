"""The picture of a free energy: a curve with error bars, or a map."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sdas.free_energy.landscape import Landscape


def landscape_figure(landscape: Landscape) -> bytes:
    """SVG."""
    names = [f"{name} ({unit})" if unit else name for name, unit in zip(landscape.names, landscape.units, strict=True)]
    with mpl.rc_context({"svg.hashsalt": "free energy", "axes.spines.right": False, "axes.spines.top": False}):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.subplots()
        if len(names) == 1:
            for each in landscape.groups:
                axes.plot(landscape.centers[0], each - np.nanmin(each), color="0.8", linewidth=0.7)
            error = landscape.error
            axes.errorbar(landscape.centers[0], landscape.mean, error, fmt="o-", markersize=3, linewidth=1.2)
            axes.set(xlabel=names[0], ylabel="free energy (k_B T)")
        else:
            mesh = axes.pcolormesh(*landscape.centers, landscape.mean.T, shading="nearest", cmap="viridis")
            figure.colorbar(mesh, label="free energy (k_B T)")
            axes.set(xlabel=names[0], ylabel=names[1])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        return buffer.getvalue()
