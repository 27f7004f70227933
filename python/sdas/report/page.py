"""report.html and report.json of a run directory."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import sdas_kernels.dispatch
from sdas.errors import SdasError
from sdas.evaluate.table import columns_of, rows_of
from sdas.files import as_argument, write_text
from sdas.report import figures
from sdas.report.numbers import report_numbers
from sdas.report.sections import RunContents, evaluate_command, read_run
from sdas.run.folder import CONFIG
from sdas.run.lock import locked

PAGE, NUMBERS = "report.html", "report.json"


def write_report(run_dir: str | Path, *, reproduce: list[str] | None = None) -> Path:
    """Write report.html and report.json into a run directory and return the path of the page.

    The page needs no other file and no network. `reproduce` are the commands that it shows; by default those of
    training from the run's configuration, evaluating and reporting.

    Raises:
        SdasError: the directory lacks summary.json, evaluation.json or predictions.npz, or one of them is damaged.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise SdasError(f"{folder}: there is no such run directory")
    with locked(folder):
        run = read_run(folder)
        numbers = report_numbers(run)
        text = render(run, numbers, reproduce or default_commands(run))
        write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
        write_text(folder / PAGE, text)
    return folder / PAGE


def render(run: RunContents, numbers: dict[str, Any], commands: list[str]) -> str:
    """The page as HTML text."""
    metrics, evaluation, dynamics = run.training.metrics, run.test.evaluation, run.dynamics
    plots = {
        "energy_parity": figures.energy_parity(evaluation) if evaluation else None,
        "force_parity": figures.force_parity(evaluation) if evaluation else None,
        "error_histogram": figures.error_histogram(evaluation) if evaluation else None,
        "learning_flops": figures.learning_curve(metrics, "train_flops"),
        "learning_time": figures.learning_curve(metrics, "wall_s"),
        "training_loss": figures.training_loss(metrics),
        **dict.fromkeys(("md_energy", "md_temperature", "displacements")),
        **dict.fromkeys(("free_energy", "free_energy_difference", "effective_frames")),
    }
    if dynamics is not None and len(dynamics.log["step"]) > 1:
        conserved = dynamics.summary["ensemble"] == "nve"
        plots["md_energy"] = figures.md_energy(dynamics.log, dynamics.summary["n_atoms"], conserved)
        plots["md_temperature"] = figures.md_temperature(dynamics.log)
    if run.diffusion is not None:
        plots["displacements"] = figures.displacements(run.diffusion["constants"])
    if run.free_energy is not None:
        plots["free_energy"] = figures.free_energy(run.free_energy)
        plots["free_energy_difference"] = figures.free_energy_difference(run.free_energy)
        plots["effective_frames"] = figures.effective_frames(run.free_energy)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            name=run.folder.resolve().name,
            written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            numbers=numbers,
            evaluation=evaluation,
            rows=rows_of(evaluation) if evaluation else {},
            columns=columns_of(evaluation) if evaluation else {},
            md=dynamics.summary if dynamics else None,
            replicas=run.replicas,
            diffusion=run.diffusion,
            free_energy=run.free_energy,
            plots={key: Markup(svg) for key, svg in plots.items() if svg},
            backends=sdas_kernels.dispatch.explain(),
            config=run.training.config,
            commands=commands,
        )
    )


def environment() -> jinja2.Environment:
    """The templates, and the filters that they write numbers by."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sdas.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    found.filters |= {"short": short, "duration": duration}
    return found


def default_commands(run: RunContents) -> list[str]:
    """What to type to get this report again, in a folder of its own: no run is written over."""
    again = run.folder.with_name(f"{run.folder.name}-again")
    return [
        f"sdas train {as_argument(run.folder / CONFIG)} --set {as_argument(f'run_dir={again}')}",
        evaluate_command(again, run.test.facts),
        f"sdas report {as_argument(again)}",
    ]


def short(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits, large and small ones as m·10ⁿ; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) and abs(value) < 1_000_000:
        return f"{value:,}".replace(",", "\u202f")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        text = f"{value:.0f}" if "e" in text else text
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}·10{figures.superscript(int(exponent))}"
    return text.replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as 45 s, 4 min 59 s or 3 h 20 min."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
