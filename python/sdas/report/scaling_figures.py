"""The pictures of an adaptive run; each returns an inline SVG."""

from __future__ import annotations

import numpy as np

from sdas.report.figures import log_axis
from sdas.report.svg import ACCENT, INK, MUTED, SECOND, new_axes, style, to_svg
from sdas.scaling.history import History
from sdas.scaling.law import Law

BAND_POINTS = 40


def scaling_curve(history: History, law: Law | None) -> str | None:
    """Validation error over all FLOPs spent, with trials, growths, and the last law with its 95 % band."""
    points = history.points
    if len(points) < 2:
        return None
    with style():
        figure, axes = new_axes(width=6.4, height=4.0)
        for trial in history.lost:
            x, y = [point.spent for point in trial], [1000 * point.error for point in trial]
            axes.plot(x, y, color=MUTED, linewidth=0.9, alpha=0.7)
        spent, error = ([getattr(p, name) for p in points] for name in ("spent", "error"))
        axes.plot(spent, 1000 * np.array(error), color=ACCENT, marker="o", markersize=2.5, label="validation")
        if history.cooled:
            cooled = [points[-1], *history.cooled]
            axes.plot([p.spent for p in cooled], [1000 * p.error for p in cooled], color=SECOND, label="cool-down")
        if law is not None and law.ready:
            compute = np.geomspace(law.first, law.last, BAND_POINTS)
            lost = np.array([point.spent - point.flops for point in points])
            at = compute + np.interp(compute, [point.flops for point in points], lost)
            low, high = 1000 * np.array([law.predict_interval(float(c)) for c in compute]).T
            axes.fill_between(at, low, high, color=INK, alpha=0.15, linewidth=0)
            axes.plot(
                at, 1000 * law.predict(compute), color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="law, 95 %"
            )
        for growth in history.growths:
            axes.axvline(growth.spent, color=SECOND, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.annotate(
                "+".join(growth.axes), (growth.spent, 0.98), xycoords=("data", "axes fraction"), rotation=90,
                va="top", ha="right", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.legend(loc="lower left")
        axes.set(xlabel="FLOPs, trials included", ylabel="validation force MAE (meV/Å)")
        log_axis(axes, "x")
        log_axis(axes, "y")
        return to_svg(figure, "scaling-curve", "Validation force error over FLOPs, with growths and the fitted law")


def model_size(history: History) -> str | None:
    """Weights of the model over the FLOPs spent."""
    points = [*history.points, *history.cooled]
    if len(points) < 2:
        return None
    with style():
        figure, axes = new_axes(width=6.4, height=4.0)
        axes.step([0, *(p.spent for p in points)], [p.parameters for p in (points[0], *points)], color=ACCENT)
        axes.set(xlabel="FLOPs, trials included", ylabel="weights of the model")
        log_axis(axes, "y")
        return to_svg(figure, "model-size", "Weights of the model over FLOPs")
