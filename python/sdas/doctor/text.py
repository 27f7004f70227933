"""What the doctor found, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdas.doctor.timing import Timing


def facts(title: str, values: Mapping[str, Any]) -> str:
    """A title and a line per fact; a dash for None and for nothing."""
    width = max(len(key) for key in values)
    lines = [f"  {key.replace('_', ' '):<{width}}  {_words(value)}" for key, value in values.items()]
    return "\n".join([title, *lines])


def timing_table(timings: Sequence[Timing]) -> str:
    """A row per operator and backend."""
    head = ["", "op", "backend", "device", "forward", "backward", "double backward", "sizes"]
    rows = [head, *(_cells(timing) for timing in timings)]
    width = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width[k]) if k in (4, 5, 6) else cell.ljust(width[k]) for k, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(timing: Timing) -> list[str]:
    times = (timing.forward_ms, timing.backward_ms, timing.double_backward_ms)
    words = [f"{ms:.3f}" if ms is not None else "–" for ms in times]
    star = "*" if timing.chosen else ""
    return [star, timing.op, timing.backend, timing.device, *words, timing.problem or timing.sizes]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_words(item) for item in value) or "–"
    return "–" if value is None else str(value)
