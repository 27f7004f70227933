"""What the files hold that was not read: names, how often, and the flag that would read it as a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdas.config.reading import flag_of
from sdas.data.label_names import plain_name

NAMES_KEPT = 200
NAMES_SHOWN = 30


@dataclass(slots=True)
class Unused:
    """frames: name → number of frames that have it, the first 200 names. options: name → option that would read it."""

    frames: Counter[str] = field(default_factory=Counter)
    options: dict[str, str] = field(default_factory=dict)

    def add(self, values: Iterable[tuple[str, Any]], atoms: int, frames: int = 1) -> None:
        """Take up the named ``values`` of one frame with that many ``atoms``, which ``frames`` frames have alike."""
        for name, value in values:
            if name not in self.frames:
                if len(self.frames) >= NAMES_KEPT:
                    continue
                if option := option_for(name, value, atoms):
                    self.options[name] = option
            self.frames[name] += frames

    def document(self) -> dict[str, Any]:
        """As JSON: name → frames and, where there is one, the option."""
        return {
            name: {"frames": n, **({"option": self.options[name]} if name in self.options else {})}
            for name, n in self.frames.items()
        }


def option_for(name: str, value: Any, atoms: int) -> str | None:
    """The option that would read a ``value`` of such a ``name`` as a label of a frame of ``atoms``, or None."""
    plain = plain_name(name)
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    if array.dtype.kind not in "iuf":
        return None
    if "force" in plain and array.shape == (atoms, 3):
        return "forces_key"
    if "energ" in plain and array.size == 1:
        return "energy_key"
    if plain.endswith("weight") and array.size == 1:
        return "weight_key"
    return "stress_key" if ("stress" in plain or "virial" in plain) and array.size in (6, 9) else None


def line_about_unused(document: dict[str, Any]) -> list[str]:
    """What :meth:`Unused.document` says as one line, those names first that a flag would read; none if it is empty."""
    names = sorted(document, key=lambda name: "option" not in document[name])
    shown = [f"{name} ({_how_often(name, document[name])})" for name in names[:NAMES_SHOWN]]
    more = [f"and {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return [f"not used: {', '.join(shown + more)}"] if shown else []


def _how_often(name: str, entry: dict[str, Any]) -> str:
    option = entry.get("option")
    return f"{entry['frames']} frames" + (f"; {flag_of(option)} {name} would read it" if option else "")
