"""The pictures of the report; each returns an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sdas.evaluate import Evaluation
from sdas.md.drift import DROPPED, energy_drift
from sdas.report.svg import ACCENT, GRID, INK, MUTED, SECOND, new_axes, style, to_svg

DENSITY_BINS = 90
DENSITY_RGB = (0.31, 0.52, 0.96)
"""A blue that stands out on white and on black; the picture's transparency carries the count."""
VALIDATION_ERRORS = {
    "val_force_mae_mev_per_ang": "force MAE (meV/Å)",
    "val_energy_mae_mev_per_atom": "energy MAE (meV/atom)",
    "val_stress_mae_mev_per_ang3": "stress MAE (meV/Å³)",
}
"""Columns of metrics.csv and their titles, the first that is there to be shown."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def energy_parity(evaluation: Evaluation) -> str | None:
    """Predicted over reference energies: about their mean if all frames have as many atoms, else per atom.

    None if no frame has an energy.
    """
    known = np.isfinite(evaluation.reference_energies)
    if not known.any():
        return None
    counts = np.diff(evaluation.offsets)[known]
    predicted, reference = evaluation.energies[known], evaluation.reference_energies[known]
    if np.all(counts == counts[0]):
        shift, label = reference.mean(), "energy − mean (eV)"
        predicted, reference = predicted - shift, reference - shift
    else:
        predicted, reference, label = predicted / counts, reference / counts, "energy (eV/atom)"
    return _parity(reference, predicted, label, "parity-energy", "Predicted energies over reference energies")


def force_parity(evaluation: Evaluation) -> str | None:
    """Predicted over reference force components, as a density; None if no frame has forces."""
    known = np.isfinite(evaluation.reference_forces)
    if not known.any():
        return None
    reference, predicted = evaluation.reference_forces[known], evaluation.forces[known]
    return _parity(reference, predicted, "force (eV/Å)", "parity-forces", "Predicted forces over reference forces")


def error_histogram(evaluation: Evaluation) -> str | None:
    """Absolute errors of force components on a logarithmic scale, with mean and root mean square; or None likewise."""
    errors = np.abs(evaluation.forces - evaluation.reference_forces).ravel() * 1000
    errors = errors[np.isfinite(errors)]
    if errors.size == 0:
        return None
    high = max(float(errors.max()), 1e-9)
    edges = np.geomspace(max(float(np.percentile(errors, 0.5)), high * 1e-5), high * 1.001, 50)
    with style():
        figure, axes = new_axes()
        axes.hist(errors, bins=edges.tolist(), color=ACCENT, alpha=0.75, linewidth=0)
        for value, color, name in (
            (errors.mean(), SECOND, "MAE"),
            (float(np.sqrt(np.mean(errors**2))), INK, "RMSE"),
        ):
            axes.axvline(value, color=color, linewidth=1.4, label=f"{name} {value:.3g}")
        axes.legend(loc="upper left")
        axes.set(xlabel="absolute force error (meV/Å)", ylabel="force components")
        log_axis(axes, "x")
        return to_svg(figure, "force-errors", "Histogram of absolute force errors")


def learning_curve(metrics: dict[str, np.ndarray], against: str) -> str | None:
    """A validation error against "train_flops" or "wall_s", both axes logarithmic; None without two points.

    The error is that of forces, or where no frame has any that of energies, else of stresses.
    """
    for name, error in VALIDATION_ERRORS.items():
        x, y = metrics.get(against, np.empty(0)), metrics.get(name, np.empty(0))
        good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0) if len(x) == len(y) else np.zeros(0, bool)
        if good.sum() >= 2:
            return _learning_curve(x[good], y[good], against, error)
    return None


def _learning_curve(x: np.ndarray, y: np.ndarray, against: str, error: str) -> str:
    label = {"train_flops": "training FLOPs", "wall_s": "wall time (s)"}[against]
    with style():
        figure, axes = new_axes()
        axes.plot(x, y, color=ACCENT, marker="o", markersize=3.5)
        axes.set(xlabel=label, ylabel=f"validation {error}")
        log_axis(axes, "x")
        log_axis(axes, "y")
        return to_svg(figure, f"learning-{against.replace('_', '-')}", f"Validation error against {label}")


def training_loss(metrics: dict[str, np.ndarray]) -> str | None:
    """Training loss against steps; None without two points."""
    if not {"step", "loss"} <= set(metrics):
        return None
    good = np.isfinite(metrics["loss"]) & (metrics["loss"] > 0)
    if good.sum() < 2:
        return None
    with style():
        figure, axes = new_axes()
        axes.plot(metrics["step"][good], metrics["loss"][good], color=ACCENT)
        axes.set(xlabel="step", ylabel="training loss")
        log_axis(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return to_svg(figure, "training-loss", "Training loss against steps")


def md_energy(log: dict[str, np.ndarray], n_atoms: int, conserved: bool) -> str:
    """Change of the total energy per atom over time, with the fitted line if it should be conserved."""
    time_ps = log["time_fs"] / 1000
    change = (log["total_ev"] - log["total_ev"][0]) * 1000 / n_atoms
    with style():
        figure, axes = new_axes()
        axes.plot(time_ps, change, color=ACCENT, linewidth=1.0)
        drift = energy_drift(log["time_fs"], log["total_ev"], n_atoms) if conserved else None
        if drift is not None:
            kept = time_ps >= time_ps[0] + DROPPED * (time_ps[-1] - time_ps[0])
            t = time_ps[kept]
            line = change[kept].mean() + drift.drift_mev_per_atom_per_ps * (t - t.mean())
            axes.plot(t, line, color=SECOND, label=f"{drift.drift_mev_per_atom_per_ps:+.3g} meV/atom/ps")
            axes.legend(loc="best")
        axes.margins(y=0.2)
        axes.set(xlabel="time (ps)", ylabel="Δ total energy (meV/atom)")
        return to_svg(figure, "md-energy", "Total energy of the simulation over time")


def md_temperature(log: dict[str, np.ndarray]) -> str:
    """Temperature over time."""
    with style():
        figure, axes = new_axes()
        axes.plot(log["time_fs"] / 1000, log["temperature_k"], color=ACCENT, linewidth=1.0)
        axes.set(xlabel="time (ps)", ylabel="temperature (K)")
        axes.set_ylim(bottom=0)
        return to_svg(figure, "md-temperature", "Temperature of the simulation over time")


def displacements(constants: Sequence[Mapping[str, Any]]) -> str:
    """Mean squared displacements over the lag, and the lines whose slopes are the diffusion constants."""
    with style():
        figure, axes = new_axes()
        for color, each in zip((ACCENT, SECOND, INK, MUTED), constants, strict=False):
            lags = np.array(each["lags_fs"]) / 1000
            axes.plot(lags, each["msd_ang2"], ".", color=color, markersize=4)
            fitted = lags[lags >= each["start_fs"] / 1000]
            line = each["intercept_ang2"] + 6 * each["diffusion_ang2_per_ps"] * fitted
            axes.plot(fitted, line, color=color, linewidth=1.2, label=each["element"])
        axes.set(xlabel="lag (ps)", ylabel="mean squared displacement (Å²)")
        axes.legend(loc="upper left")
        return to_svg(figure, "displacements", "Mean squared displacements over the lag")


def free_energy(document: Mapping[str, Any]) -> str | None:
    """Free energy along a variable with its standard error; None of two variables.

    Of the model, and of its reference where single energies of it have reweighted the model's.
    """
    if len(document["variables"]) != 1:
        return None
    centers, reweighting = document["centers"][0], document.get("reweighting")
    values = np.array(document["free_energy_kt"], dtype=float)  # null is NaN
    error = document["standard_error_kt"]
    with style():
        figure, axes = new_axes()
        axes.plot(centers, values, color=ACCENT, label="model")
        if error is not None:
            _band(axes, centers, values, error, ACCENT)
        if reweighting:
            reference = np.array(reweighting["free_energy_kt"], dtype=float)
            axes.plot(centers, reference, color=SECOND, linestyle="--", label="reference")
            _band(axes, centers, reference, reweighting["difference_error_kt"], SECOND)
            axes.legend(loc="best")
        axes.set(xlabel=_variable(document), ylabel="free energy (k_B T)")
        return to_svg(figure, "free-energy", "Free energy along the variable")


def free_energy_difference(document: Mapping[str, Any]) -> str | None:
    """Reference less model along a variable with the interval of 95 %; None of two variables, or if not reweighted."""
    reweighting = document.get("reweighting")
    if len(document["variables"]) != 1 or not reweighting:
        return None
    low, high = np.array(reweighting["difference_interval_95_kt"], dtype=float)
    with style():
        figure, axes = new_axes()
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.fill_between(document["centers"][0], low, high, color=SECOND, alpha=0.25, lw=0)
        axes.plot(document["centers"][0], np.array(reweighting["difference_kt"], dtype=float), ".-", color=SECOND)
        axes.set(xlabel=_variable(document), ylabel="reference − model (k_B T)")
        return to_svg(figure, "free-energy-difference", "Free energy of the reference less that of the model")


def effective_frames(document: Mapping[str, Any]) -> str | None:
    """Frames of each bin that were reweighted, and how many they are worth; None as above."""
    reweighting = document.get("reweighting")
    if len(document["variables"]) != 1 or not reweighting:
        return None
    centers = np.array(document["centers"][0])
    with style():
        figure, axes = new_axes()
        axes.bar(centers, reweighting["frames"], centers[1] - centers[0], color=GRID, label="frames")
        axes.bar(centers, reweighting["effective_frames"], 0.7 * (centers[1] - centers[0]), color=SECOND, label="worth")
        axes.axhline(reweighting["fewest_effective_frames"], color=INK, linewidth=0.8, linestyle=":")
        axes.legend(loc="upper right", ncols=2)
        axes.set(xlabel=_variable(document), ylabel="frames of a bin", ylim=(0, 1.3 * max(reweighting["frames"])))
        return to_svg(figure, "effective-frames", "Frames of each bin, and how many they are worth")


def _band(axes: Axes, centers: Sequence[float], values: np.ndarray, error: Sequence[float | None], color: str) -> None:
    spread = np.array(error, dtype=float)
    axes.fill_between(centers, values - spread, values + spread, color=color, alpha=0.25, lw=0)


def _variable(document: Mapping[str, Any]) -> str:
    """With its unit."""
    unit = document["units"][0]
    return str(document["variables"][0]) + (f" ({unit})" if unit else "")


def _parity(reference: np.ndarray, predicted: np.ndarray, label: str, name: str, description: str) -> str:
    low = float(min(reference.min(), predicted.min()))
    high = float(max(reference.max(), predicted.max()))
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    with style():
        figure, axes = new_axes(height=3.7)
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        if len(reference) > 2000:
            _density(axes, reference, predicted, low, high)
        else:
            axes.scatter(reference, predicted, s=9, color=ACCENT, alpha=0.45, linewidths=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set(xlabel=f"reference {label}", ylabel=f"predicted {label}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return to_svg(figure, name, description)


def _density(axes: Axes, x: np.ndarray, y: np.ndarray, low: float, high: float) -> None:
    counts = np.histogram2d(y, x, bins=DENSITY_BINS, range=[[low, high], [low, high]])[0]
    pixels = np.zeros((*counts.shape, 4))
    pixels[..., :3] = DENSITY_RGB
    depth = np.log1p(counts) / max(np.log1p(counts.max()), 1e-12)
    pixels[..., 3] = np.where(counts > 0, 0.25 + 0.75 * depth, 0)
    axes.imshow(pixels, extent=(low, high, low, high), origin="lower", interpolation="nearest", zorder=2)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with readable ticks: powers of ten, and 2 and 5 between them where decades are few."""
    axis: XAxis | YAxis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = np.log10(high / low)
    steps = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0) if decades > 0.5 else tuple(range(1, 10))
    axis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))


def _power(value: float) -> str:
    """1500 -> "1500", 2e13 -> "2·10¹³"."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + superscript(int(exponent))
    return power if mantissa == "1" else f"{mantissa}·{power}"


def superscript(exponent: int) -> str:
    """An integer in raised digits."""
    return str(exponent).translate(_SUPERSCRIPTS)
