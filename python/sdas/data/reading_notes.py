"""What reading a data set found out beside its frames: the names of its labels, and the frames that were left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sdas.data.electronic_states import ElectronicStates
from sdas.data.unused import Unused, line_about_unused

SOURCES_LISTED = 5
"""Frames left out that are named for each reason; the rest are counted."""


@dataclass(slots=True)
class ReadingNotes:
    """Filled while frames are read; complete when the last frame came.

    formats: names of the readers, with the number of files. labels: label → names under which the files hold it, with
    the number of frames. skipped: reason → number of frames left out; sources: reason → where the first of them are.
    units: units that the files name, with the number of frames. unused: what else the files hold. states: charges and
    spins. remarks: what a reader has to say → how often. parts: train, validation and test, where each has files of its
    own → number of frames, which stand one part after the other.
    """

    formats: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, list[str]] = field(default_factory=dict)
    units: Counter[str] = field(default_factory=Counter)
    unused: Unused = field(default_factory=Unused)
    states: ElectronicStates = field(default_factory=ElectronicStates)
    remarks: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)

    def found(self, label: str, name: str, frames: int = 1) -> None:
        """So many ``frames`` have ``label`` under ``name``."""
        self.labels.setdefault(label, Counter())[name] += frames

    def skip(self, source: str, reason: str) -> None:
        """The frame ``source`` is left out for ``reason``."""
        self.skipped[reason] += 1
        listed = self.sources.setdefault(reason, [])
        if len(listed) < SOURCES_LISTED:
            listed.append(source)

    def document(self) -> dict[str, Any]:
        """The notes as JSON, for the manifest of a cache."""
        skipped = {reason: {"frames": n, "first": self.sources[reason]} for reason, n in self.skipped.items()}
        labels = {label: dict(names) for label, names in self.labels.items()}
        remarks = [f"note: {text}" + (f" ({n} times)" if n > 1 else "") for text, n in self.remarks.items()]
        return {
            "formats": dict(self.formats),
            "labels": labels,
            "skipped": skipped,
            "units": dict(self.units),
            "parts": dict(self.parts),
            "unused": self.unused.document(),
            "remarks": [*remarks, *self.states.lines()],
        }


def lines_about_reading(document: dict[str, Any]) -> list[str]:
    """What :meth:`ReadingNotes.document` says as lines of text: names of labels, what is not used, frames left out."""
    labels = [f"{label} from {', '.join(names)}" for label, names in document.get("labels", {}).items()]
    return [
        *([f"labels: {'; '.join(labels)}"] if labels else []),
        *(f"units: {units}, as the files say" for units in document.get("units", {})),
        *line_about_unused(document.get("unused", {})),
        *document.get("remarks", []),
        *lines_about_skipped(document),
    ]


def lines_about_skipped(document: dict[str, Any]) -> list[str]:
    """The frames that were left out according to ``document``, a line for each reason."""
    lines = []
    for reason, entry in document.get("skipped", {}).items():
        more = ", …" if entry["frames"] > len(entry["first"]) else ""
        lines.append(f"skipped: {entry['frames']} ({reason}): {', '.join(entry['first'])}{more}")
    return lines
