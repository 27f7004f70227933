"""Labels for frames of the pool, by an oracle or uncovered, in the run's store of labels."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sdas.active.shapes import Kinds
from sdas.config import ActiveConfig
from sdas.config.active import HIDDEN
from sdas.config.label import parse_oracle
from sdas.data import Frame
from sdas.errors import ActiveError, LabelError
from sdas.label import Failure, Label, LabelStore, address, label_frames, make_oracle
from sdas.run.folder import LABELS

HOW_TO_SET = "In a run of active learning that is --set 'active.oracle_settings={spin: 2}'"
TBLITE = "tblite"
"""The oracle of a run that begins from nothing, unless another is named."""


@dataclass(frozen=True)
class Labeled:
    """frames: with labels, those that have one. indices: theirs among the frames given. failed: of each other one the
    index, the kind of failure and its reason. seconds: of oracles together. notes: about the labels."""

    frames: list[Frame]
    indices: list[int]
    failed: list[dict[str, Any]]
    computed: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """What a ledger notes of it."""
        return {"failed": self.failed, "computed": self.computed, "oracle_s": round(self.seconds, 3)} | (
            {"notes": self.notes} if self.notes else {}
        )


def label(frames: Sequence[Frame], settings: ActiveConfig, run: Path) -> Labeled:
    """Labels for frames, those of the store first; a label that cannot be had is noted, and is no error.

    Raises :class:`ActiveError` if none of them gets one, and :class:`sdas.errors.LabelError` as the label room does.
    """
    with LabelStore.open(run / LABELS) as store:
        if settings.oracle == HIDDEN:
            return _uncovered(frames, store)
        oracle = parse_oracle(settings.oracle or TBLITE, settings.oracle_settings)
        with tqdm(total=len(frames), desc="label", unit="frame", disable=None) as bar:
            done = label_frames(frames, oracle, store, settings.resources, progress=bar.update)
    for note in done.notes():
        print(f"note: {note} (in {run / LABELS})", file=sys.stderr)
    found = Labeled([], [], [], done.computed, 0.0)
    seconds = 0.0
    for index, (frame, outcome) in enumerate(zip(frames, done.outcomes, strict=True)):
        seconds += float(outcome.facts.get("seconds", 0.0))
        if isinstance(outcome, Failure):
            found.failed.append({"index": index, "kind": outcome.kind, "reason": outcome.reason})
        else:
            found.frames.append(_with(frame, outcome))
            found.indices.append(index)
    if found.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(row["kind"] for row in found.failed).items())
        first = f"could not be labeled ({kinds}); the first one: {found.failed[0]['reason']}"
        if not found.frames:
            raise ActiveError(f"{len(frames)} of {len(frames)} frames {first}")
        print(f"note: {len(found.failed)} of {len(frames)} frames {first}", file=sys.stderr)
    return replace(found, seconds=seconds, notes=done.notes())


def check_oracle(pool: Sequence[Frame], settings: ActiveConfig) -> None:
    """Raise :class:`ActiveError` if the oracle cannot label a kind of frames in the pool."""
    if settings.oracle == HIDDEN:
        return
    config = parse_oracle(settings.oracle or TBLITE, settings.oracle_settings)
    oracle, kinds = make_oracle(config, settings.resources.memory_mib), set[int]()
    for frame, kind in zip(pool, Kinds().of(pool).tolist(), strict=True):
        if kind not in kinds:
            kinds.add(kind)
            try:
                oracle.prepared(frame)
            except LabelError as error:
                raise ActiveError(f"the pool cannot be labeled: {error}. {HOW_TO_SET}") from None


def _uncovered(frames: Sequence[Frame], store: LabelStore) -> Labeled:
    method = {"oracle": HIDDEN}
    for frame in frames:
        assert frame.energy is not None, frame.source
        assert frame.forces is not None, frame.source
        store.put(address(frame, method), frame, Label(frame.energy, frame.forces, frame.stress, {"method": method}))
    return Labeled(list(frames), list(range(len(frames))), [], len(frames), 0.0)


def _with(frame: Frame, outcome: Label) -> Frame:
    return replace(frame, energy=outcome.energy, forces=outcome.forces, stress=outcome.stress)
