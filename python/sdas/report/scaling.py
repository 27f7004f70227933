"""scaling.html: the page about an adaptive run, read from its ledger."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sdas.files import write_text
from sdas.report.page import environment
from sdas.report.scaling_figures import model_size, scaling_curve
from sdas.scaling.history import History, read_history
from sdas.scaling.law import Law

SCALING_PAGE = "scaling.html"


def write_scaling_page(run_dir: str | Path) -> Path:
    """Write scaling.html into the directory of an adaptive run, ended or not, and return its path.

    Raises :class:`sdas.errors.ScalingError` if there is no ledger, or a damaged one.
    """
    folder = Path(run_dir)
    write_text(folder / SCALING_PAGE, render_scaling(folder.resolve().name, read_history(folder)))
    return folder / SCALING_PAGE


def render_scaling(name: str, history: History) -> str:
    """The page as HTML text."""
    law = history.law()
    plots = {"curve": scaling_curve(history, law), "size": model_size(history)}
    points = [*history.points, *history.cooled]
    ended = history.ended or {}
    return (
        environment()
        .get_template("scaling.html.jinja")
        .render(
            name=name,
            written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            status=ended.get("reason", "The run has not ended."),
            start=history.start,
            spent=ended.get("spent", history.decisions[-1]["spent"] if history.decisions else 0),
            lost=sum(trial["flops"] for trial in _lost(history)),
            error=1000 * points[-1].error if points else None,
            sizes=(history.growths[-1].sizes if history.growths else history.start.get("sizes", {})),
            parameters=points[-1].parameters if points else None,
            law=_law_rows(law),
            law_note=_law_note(law),
            growths=history.growths,
            rounds=[{"grown": " and ".join(grown), "trials": trials} for trials, grown in history.rounds],
            decisions=history.decisions,
            plots={key: Markup(svg) for key, svg in plots.items() if svg},
        )
    )


def _lost(history: History) -> list[dict[str, Any]]:
    return [trial for trials, grown in history.rounds for trial in trials if [trial["axis"]] != grown]


def _law_rows(law: Law | None) -> list[tuple[str, float, float, float]]:
    """Name with unit, value, and the ends of the interval, of each number that the law gives."""
    if law is None:
        return []
    gain, (low, high) = law.slope(law.last), law.slope_interval(law.last)
    e_low, e_high = law.interval("e_inf")
    return [
        ("α", law.alpha, *law.interval("alpha")),
        ("E∞, meV/Å", 1000 * law.e_inf, 1000 * e_low, 1000 * e_high),
        ("gain, % of the error per % of compute", gain, low, high),
    ]


def _law_note(law: Law | None) -> str:
    if law is None:
        return "There are too few points for a law."
    known = "E∞ and α are known one by one." if law.identifiable else f"E∞ and α are not known one by one: {law.why}"
    left_out = f", the first {law.left_out} left out" if law.left_out else ""
    return f"Fitted to {law.points} validations before the cool-down{left_out}. {known}"
