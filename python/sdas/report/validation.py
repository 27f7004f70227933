"""The page of validate.json: which lines passed, and what was measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sdas.documents import read_document
from sdas.files import write_text
from sdas.report.page import short
from sdas.report.sheet import Section, render_sheet
from sdas.report.svg import ACCENT, INK, MUTED, SECOND, new_axes, style, to_svg

COLORS = (ACCENT, SECOND, INK, MUTED)


def write_validation(numbers: str | Path) -> Path:
    """Write the page beside the JSON of a suite, with the ending .html; raises SdasError if that cannot be read."""
    place = Path(numbers)
    document = read_document(place, advice="sdas validate MODEL writes it")
    page = place.with_suffix(".html")
    counts = Counter(check["status"] for check in document["checks"])
    told = "Every check passed." if document["passed"] else f"{counts['fail']} of the checks failed."
    lead = [
        f"{document['model']}, on {document['frames']} frames of {document['data']}",
        f"{told} {counts['pass']} passed, {counts['fail']} failed, {counts['skipped']} have no meaning here.",
    ]
    rows = [
        [
            check["name"],
            "FAIL" if check["status"] == "fail" else check["status"],
            check["value"],
            f"{short(check['bound'])} {check['unit']}",
            check["note"],
        ]
        for check in document["checks"]
    ]
    columns = ["check", "result", "value", "bound", "note"]
    pictures = {curve["title"]: _curve(curve, f"curve-{k}") for k, curve in enumerate(document["curves"])}
    text = ["A value must not be above its bound. docs/validate.md says why each bound is what it is."]
    sections = [Section("Checks", text, columns, rows, words=True)]
    if pictures:
        sections.append(Section("Curves", pictures=pictures))
    write_text(page, render_sheet("May the model be trusted?", lead, sections))
    return page


def _curve(curve: dict[str, Any], name: str) -> str:
    dashes = ("-", "--", ":")
    with style():
        figure, axes = new_axes()
        for k, (label, values) in enumerate(curve["lines"].items()):
            color, dash = COLORS[k % len(COLORS)], dashes[k // len(COLORS) % len(dashes)]
            axes.plot(curve["x"], values, color=color, linestyle=dash, label=label)
        if len(curve["lines"]) > 1:
            axes.legend(loc="best")
        axes.set(xlabel=curve["x_label"], ylabel=curve["y_label"])
        return to_svg(figure, name, curve["title"])
