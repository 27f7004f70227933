"""A line of the suite: a number, its bound, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """group, name: what was looked at. status: "pass", "fail" or "skipped". value, bound: in `unit`, or None.
    note: why a line was skipped, or what went wrong."""

    group: str
    name: str
    status: str
    value: float | None = None
    bound: float | None = None
    unit: str = ""
    note: str = ""

    def numbers(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Curve:
    """A picture: lines over `x`, all of the same length."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    lines: dict[str, list[float]]


def judged(group: str, name: str, value: float, bound: float, unit: str, note: str = "") -> Check:
    """A value that must not be above its bound; one that is no finite number fails."""
    if not math.isfinite(value):
        return Check(group, name, "fail", None, bound, unit, note or "not a finite number")
    return Check(group, name, "pass" if value <= bound else "fail", float(value), float(bound), unit, note)


def failed(group: str, name: str, note: str) -> Check:
    """Something that could not be measured because the model gives no usable numbers."""
    return Check(group, name, "fail", note=note)


def skipped(group: str, name: str, note: str) -> Check:
    """Something that has no meaning here."""
    return Check(group, name, "skipped", note=note)
