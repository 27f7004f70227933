"""What a ledger tells: the curve, the growths, the trials and the decisions of an adaptive run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdas.scaling.cooling import CoolDown, CooledLaw, fit_cooled
from sdas.scaling.law import Law, law_since
from sdas.scaling.ledger import Line, read_ledger

RUN = "."
"""The folder of points of the run itself; others are of trials."""


@dataclass(frozen=True)
class HistoryPoint:
    """A validation. spent: FLOPs until then, trials included. flops: without trials that were lost. error: eV/Å.
    parameters: of the model."""

    spent: int
    flops: int
    error: float
    parameters: int


@dataclass(frozen=True)
class Growth:
    """What grew, to which sizes, and the error in eV/Å before it and right after it. spent, flops: as of a point."""

    axes: list[str]
    sizes: dict[str, int]
    spent: int
    flops: int
    before: float
    born: float


@dataclass
class History:
    """An adaptive run as far as it has come.

    start: the first line. points: of the run, winners' trials included, until the cool-down; cooled: of that, which is
    cool_down, None before it.
    lost: of each trial that was lost, its points. rounds: of each round of trials, the outcomes, and the axes that
    grew; a trial is not lost if its axis grew alone. ended: the last line, or None.
    """

    start: Line
    points: list[HistoryPoint] = field(default_factory=list)
    cooled: list[HistoryPoint] = field(default_factory=list)
    cool_down: CoolDown | None = None
    lost: list[list[HistoryPoint]] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    decisions: list[Line] = field(default_factory=list)
    rounds: list[tuple[list[Line], list[str]]] = field(default_factory=list)
    ended: Line | None = None

    def law(self) -> Law | None:
        """Of the points before the cool-down that are of the model as it is; None if they are too few."""
        if not self.points:  # of a run that has not begun, whose start is not known
            return None
        grown_at = self.growths[-1].flops if self.growths else 0
        curve = ((point.flops, point.error) for point in self.points)
        return law_since(grown_at, curve, self.start["rules"]["patience"], self.start["seed"])

    def cooled_law(self) -> CooledLaw | None:
        """What the cool-down brought beyond that law; None before there are points of it."""
        law = self.law()
        if law is None or self.cool_down is None or not self.cooled:
            return None
        compute, error = ([getattr(point, name) for point in self.cooled] for name in ("flops", "error"))
        return fit_cooled(law, compute, error, [self.cool_down] * len(self.cooled))


def read_history(folder: Path) -> History:
    """The history of the run in a folder; raises :class:`sdas.errors.ScalingError` without a ledger."""
    return history_of(read_ledger(folder))


def history_of(lines: Iterable[Line]) -> History:
    """The history that these lines tell. A run that has not begun has no line, and an empty history."""
    lines = list(lines)
    history = History(lines[0] if lines else {})
    trials: dict[str, list[HistoryPoint]] = {}
    tried: list[Line] = []
    for line in lines:
        kind = line["kind"]
        if kind == "validated":
            point = HistoryPoint(line["spent"], line["flops"], line["error"], line["parameters"])
            if line["folder"] != RUN:
                _append(trials.setdefault(line["folder"], []), point)
            elif history.cool_down is not None:
                _append(history.cooled, point)
            else:
                _append(history.points, point)
        elif kind == "tried":
            tried.append(line)
        elif kind == "decided":
            history.decisions.append(line)
            if tried:
                history.rounds.append((tried, line["axes"] if line["action"] == "scale up" else []))
                tried = []
        elif kind == "grown":
            _grow(history, line, trials.pop(line["folder"], []))
        elif kind == "cooling":
            history.cool_down = CoolDown(line["flops"], line["end"] - line["flops"])
        elif kind == "ended":
            history.ended = line
        if kind in ("grown", "cooling"):
            history.lost += trials.values()
            trials = {}
    return history


def _append(points: list[HistoryPoint], point: HistoryPoint) -> None:
    """A step that is longer than the way between two validations leads to one point only."""
    if not points or point.flops > points[-1].flops:
        points.append(point)


def _grow(history: History, line: Line, winner: list[HistoryPoint]) -> None:
    """The winner's trial is of the run; those that were lost count as made before it."""
    before = history.points[-1].error
    history.growths.append(Growth(line["axes"], line["sizes"], line["spent"], line["flops"], before, line["born"]))
    lost = line["spent"] - line["flops"]
    history.points += [replace(point, spent=point.flops + lost) for point in winner]
