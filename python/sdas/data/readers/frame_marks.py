"""What a file says of a frame beside its labels: its weight in the loss, and the kind of structures it belongs to.

The names are those of libAtoms and MACE: ``config_weight`` and ``config_type``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdas.data.errors import DataError
from sdas.data.readers.options import ReadOptions, one_float

WEIGHT, CONFIG_TYPE = "config_weight", "config_type"


def marks_of(stored: Iterable[tuple[str, Any]], options: ReadOptions, where: str) -> dict[str, Any]:
    """``weight`` and ``config_type`` among the named values of a frame, as far as they are there."""
    values, marks = dict(stored), dict[str, Any]()
    key = options.weight_key or WEIGHT
    if key in values:
        marks["weight"] = one_float(values[key], 1.0, where, f"weight {key}")
        options.notes.found("weight", key)
    if CONFIG_TYPE in values and str(values[CONFIG_TYPE]):
        marks["config_type"] = _one_name(values[CONFIG_TYPE], where)
    return marks


def is_mark(name: str, options: ReadOptions) -> bool:
    """Whether :func:`marks_of` reads a value of this name."""
    return name in (CONFIG_TYPE, options.weight_key or WEIGHT)


def _one_name(value: Any, where: str) -> str:
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {CONFIG_TYPE} must be one name, got {value!r}")
    return str(value)
