"""The picture: mean squared displacements over time, the fitted lines and their intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdas.diffusion.estimate import INTERVAL, Diffusion


def msd_figure(constants: Sequence[Diffusion], reference: Sequence[Diffusion] = ()) -> bytes:
    """SVG; a panel for each element, the reference dashed."""
    with mpl.rc_context(
        {"svg.hashsalt": "diffusion", "font.size": 10, "axes.spines.right": False, "axes.spines.top": False}
    ):
        figure = Figure(figsize=(4.2 * len(constants), 3.2), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(constants)))
        for row, (axes, found) in enumerate(zip(panels, constants, strict=True)):
            _curve(axes, found, "C0", "-", found.element)
            if reference:
                _curve(axes, reference[row], "C1", "--", f"{found.element}, reference")
            axes.set(xlabel="lag (ps)", ylabel="mean squared displacement (Å²)")
            axes.set(xlim=(0, None), ylim=(0, None))
            axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        return buffer.getvalue()


def _curve(axes: Axes, found: Diffusion, color: str, line: str, name: str) -> None:
    lags = found.lags_fs / 1000
    axes.errorbar(lags, found.msd, found.msd_sigma, fmt="o", markersize=2.5, color=color, elinewidth=0.7, alpha=0.6)
    fitted = lags[found.lags_fs >= found.start_fs]
    axes.plot(fitted, found.intercept + 6 * found.mean * fitted, line, color=color, linewidth=1.4,
              label=f"{name}: D = {found.mean:.3g} ± {found.sigma:.1g} Å²/ps")  # fmt: skip
    low, high = (6 * value for value in np.percentile(found.samples, INTERVAL))
    axes.fill_between(
        fitted, found.intercept + low * fitted, found.intercept + high * fitted, color=color, alpha=0.15, lw=0
    )
