"""report.html and report.json of a run of active learning, from its ledger and its pool."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sdas.active.folder import round_pool
from sdas.config import load_config
from sdas.data import FrameCache
from sdas.errors import ActiveError
from sdas.files import as_argument, write_text
from sdas.report import active_figures
from sdas.report.page import NUMBERS, PAGE, environment
from sdas.run.folder import ACTS, CONFIG, POOL
from sdas.run.ledger import Line, read_lines

MOST_PICTURES = 12
"""Of the frames that a round selected."""


def write_active_report(folder: Path) -> Path:
    """Write report.html and report.json into a run directory, as far as the run has come; gives the path of the page.

    Raises :class:`ActiveError` if there is no run of active learning, or none that has begun.
    """
    acts = read_lines(folder / ACTS, ActiveError)
    if not any(act["kind"] == "start" for act in acts):
        raise ActiveError(f"{folder / ACTS}: no run of active learning has begun there")
    config = load_config(folder / CONFIG)
    rounds, pool = rounds_of(acts), _latest_pool(folder, acts)
    part = "test" if any(act["kind"] == "assessed" and act["test"] for act in acts) else "validation"
    settings = config.active.model_dump(mode="json")
    numbers = {"settings": settings, "errors_on": part, "cost": cost_of(acts), "rounds": rounds}
    page = environment().get_template("active.html.jinja").render(
        name=folder.resolve().name,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        complete=len(rounds) == config.active.rounds + 1 or any(act.get("chosen") == [] for act in acts),
        rounds=[_with_pictures(row, pool) for row in rounds],
        part=part,
        unit=next((act["pool"]["unit"] for act in acts if act["kind"] == "assessed"), ""),
        dropped=_dropped(acts),
        notes=_notes(acts),
        plots={name: Markup(svg) for name, svg in _plots(acts, rounds).items() if svg},
        config=(folder / CONFIG).read_text(encoding="utf-8"),
        commands=[f"sdas active --resume {as_argument(folder)}", f"sdas report {as_argument(folder)}"],
        **{key: numbers[key] for key in ("settings", "cost")},
    )  # fmt: skip
    write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    write_text(folder / PAGE, page)
    return folder / PAGE


def _latest_pool(folder: Path, acts: list[Line]) -> FrameCache:
    """Rounds may add frames to the pool, behind those that it has."""
    explored = [act["round"] for act in acts if act["kind"] == "explored"]
    return FrameCache.open(round_pool(folder, explored[-1]) if explored else folder / POOL)


def rounds_of(acts: list[Line]) -> list[dict[str, Any]]:
    """A row of numbers for each ensemble that was assessed, and what was selected by it."""
    rows: dict[int, dict[str, Any]] = {}
    for act in acts:
        row = rows.setdefault(act["round"], {"round": act["round"]}) if "round" in act else {}
        if act["kind"] == "trained":
            row |= {"training_s": act["seconds"], "flops": act["flops"]}
        elif act["kind"] == "assessed":
            row |= _assessed(act)
        elif act["kind"] == "selected":
            row |= {"duplicates": act["duplicates"], "selected": _selected(act)}
        elif act["kind"] == "labeled":
            row |= _labeled(act, row["selected"])
    nothing = dict.fromkeys((*_NUMBERS, "training_s", "oracle_s", "duplicates", "failed"))
    return [{**nothing, "selected": [], **row} for row in rows.values() if "labels" in row]


def cost_of(acts: list[Line]) -> dict[str, Any]:
    """What the run has cost so far: seconds of training and of oracles, FLOPs, and labels that were computed."""
    trained = [act for act in acts if act["kind"] == "trained"]
    labeled = [act for act in acts if act["kind"] == "labeled"]
    labeled += [act["first_labels"] for act in acts if "first_labels" in act]
    return {
        "training_s": sum(act["seconds"] for act in trained),
        "flops": sum(act["flops"] for act in trained),
        "oracle_s": sum(act["oracle_s"] for act in labeled),
        "labels": sum(act["computed"] for act in labeled),
    }


_NUMBERS = (
    *("force_mae_mev_per_ang", "force_rmse_mev_per_ang", "energy_mae_mev", "energy_rmse_mev"),
    *("coverage_validation", "coverage_test", "coverage_selected", "selected_force_mae_mev_per_ang"),
)


def _assessed(act: Line) -> dict[str, Any]:
    errors = {name: value for name, value in (act["test"] or act["validation"]).items() if name in _NUMBERS}
    coverage = {f"coverage_{part}": (act["calibration"][part] or {}).get("coverage") for part in ("validation", "test")}
    return {"labels": act["labels"], "pool": act["pool"], **errors, **coverage}


def _selected(act: Line) -> list[dict[str, Any]]:
    columns = zip(act["chosen"], act["uncertainty"], act["sources"], strict=True)
    return [
        {"index": index, "uncertainty": sigma, "source": source, "label": "not yet"} for index, sigma, source in columns
    ]


def _labeled(act: Line, selected: list[dict[str, Any]]) -> dict[str, Any]:
    failed = {row["index"]: row["kind"] for row in act["failed"]}
    for number, frame in enumerate(selected):
        frame["label"] = failed.get(number, "yes")
    return {
        "oracle_s": act["oracle_s"],
        "failed": len(failed),
        "coverage_selected": (act["calibration"] or {}).get("coverage"),
        "selected_force_mae_mev_per_ang": act["before"]["force_mae_mev_per_ang"],
    }


def _with_pictures(row: dict[str, Any], pool: FrameCache) -> dict[str, Any]:
    drawn = [
        {**frame, "picture": Markup(active_figures.molecule(pool[frame["index"]])) if number < MOST_PICTURES else None}
        for number, frame in enumerate(row["selected"])
    ]
    return {**row, "selected": drawn}


def _dropped(acts: list[Line]) -> str:
    counts = Counter(next(act["dropped"] for act in acts if act["kind"] == "pool"))
    return ", ".join(f"{count} ({reason})" for reason, count in counts.items()) or "nothing"


def _notes(acts: list[Line]) -> list[str]:
    """What labels are remarkable for, each once."""
    notes = [note for act in acts for note in (*act.get("notes", ()), *act.get("first_labels", {}).get("notes", ()))]
    return list(dict.fromkeys(notes))


def _plots(acts: list[Line], rounds: list[dict[str, Any]]) -> dict[str, str | None]:
    last: dict[str, Any] = next((act["calibration"] for act in reversed(acts) if act["kind"] == "assessed"), {})
    judged = {"validation": last.get("validation"), "test": last.get("test")}
    judged["selected"] = next((act["calibration"] for act in reversed(acts) if act["kind"] == "labeled"), None)
    return {
        "errors": active_figures.errors(rounds),
        "uncertainty": active_figures.uncertainty(rounds),
        "reliability": active_figures.reliability({name: each["reliability"] for name, each in judged.items() if each}),
    }
