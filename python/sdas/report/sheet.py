"""A page of sections, each of text, a table and pictures, that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from sdas.report.page import environment


@dataclass(frozen=True)
class Section:
    """columns, rows: of a table; cells are words or numbers. words: whether the table is one of words rather than
    numbers. pictures: title → `<svg>`."""

    title: str
    text: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    words: bool = False
    pictures: Mapping[str, str] = field(default_factory=dict)


def render_sheet(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML text."""
    shown = [
        {**vars(section), "pictures": {name: Markup(svg) for name, svg in section.pictures.items()}}
        for section in sections
    ]
    return environment().get_template("sheet.html.jinja").render(title=title, lead=lead, sections=shown)
