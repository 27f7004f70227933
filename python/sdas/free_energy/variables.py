"""Collective variables: numbers of a structure along which free energies are wanted.

parse_variable("distance:0,1")         Å
parse_variable("angle:0,1,2")          degrees, at atom 1
parse_variable("dihedral:0,1,2,3")     degrees, -180 to 180, as ASE and IUPAC count but for the branch
parse_variable("difference:0,1,2")     Å, distance 0–1 less distance 1–2: how far atom 1 has gone over from 0 to 2
parse_variable("coordination:0,5,6@1.6")   of atom 0 by 5 and 6: Σ 1 / (1 + (d / 1.6 Å)⁶)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from sdas.errors import SdasError
from sdas.md.systems import Systems

Value = Callable[[torch.Tensor], torch.Tensor]
"""From vectors between the atoms of a variable, each from the first of a pair to the second, [B, pairs, 3], to [B]."""
KINDS = {"distance": 2, "difference": 3, "angle": 3, "dihedral": 4, "coordination": 2}
"""How many atoms each has, coordination at least."""
WORD = re.compile(r"(?P<kind>\w+):(?P<atoms>\d+(?:,\d+)*)(?:@(?P<radius>[\d.]+))?")
FORMS = "distance:I,J, difference:I,J,K, angle:I,J,K, dihedral:I,J,K,L or coordination:I,J,…@RADIUS"


@dataclass(frozen=True)
class Variable:
    """name: as written. pairs: of atoms, counted in each system. value: of their vectors. unit. period: or None."""

    name: str
    pairs: tuple[tuple[int, int], ...]
    value: Value
    unit: str
    period: float | None = None

    def __call__(self, systems: Systems) -> torch.Tensor:
        """`[B]`, differentiable by positions. Vectors go to the nearest image along periodic axes."""
        starts = torch.tensor(systems.starts[:-1], device=systems.device)[:, None]
        pairs = torch.tensor(self.pairs, device=systems.device)
        vectors = systems.positions[starts + pairs[:, 1]] - systems.positions[starts + pairs[:, 0]]
        if bool(systems.pbc.any()):
            blank = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
            cells = torch.where(systems.pbc[:, :, None], systems.cells, blank)
            vectors = vectors + _to_nearest(vectors.detach(), cells, systems.pbc)
        return self.value(vectors)

    def check(self, atoms: int) -> None:
        """Raise SdasError if a structure of so many atoms lacks one of them."""
        most = max(max(pair) for pair in self.pairs)
        if most >= atoms:
            raise SdasError(f"{self.name}: there is no atom {most}; the structure has {atoms}, counted from 0")


@dataclass(frozen=True)
class Axis:
    """A variable, or any function of systems that gives `[B]`, between two values, in bins."""

    variable: Callable[[Systems], torch.Tensor]
    low: float
    high: float
    bins: int

    def __post_init__(self) -> None:
        if not (float("-inf") < self.low < self.high < float("inf")) or self.bins < 4:
            raise SdasError(
                f"an axis wants low < high and 4 bins at least, got {self.low:g}, {self.high:g}, {self.bins}"
            )
        period = getattr(self.variable, "period", None)
        if period is not None and self.high - self.low > period + 1e-9:
            raise SdasError(f"{self.name}: {self.low:g} to {self.high:g} is more than its period of {period:g}")

    @property
    def name(self) -> str:
        """Of the variable."""
        return str(getattr(self.variable, "name", "variable"))

    @property
    def periodic(self) -> bool:
        """Whether the ends are one point."""
        period = getattr(self.variable, "period", None)
        return period is not None and abs(self.high - self.low - period) < 1e-9

    @property
    def width(self) -> float:
        """Of a bin."""
        return (self.high - self.low) / self.bins

    @property
    def centers(self) -> np.ndarray:
        """Of the bins `[bins]`."""
        return self.low + self.width * (np.arange(self.bins) + 0.5)

    def value(self, systems: Systems) -> torch.Tensor:
        """`[B]`: of a periodic variable the image nearest to the middle of the range, which may go beyond ±180°."""
        value, period = self.variable(systems), getattr(self.variable, "period", None)
        if period is None:
            return value
        turns = ((value.detach() - (self.low + self.high) / 2) / period).round()
        return value - period * turns

    def bin_of(self, value: torch.Tensor) -> torch.Tensor:
        """Of each value; −1 outside of the range."""
        place = ((value - self.low) / self.width).floor().long()
        if self.periodic:
            return place % self.bins
        return torch.where((place >= 0) & (place < self.bins), place, -1)


def parse_variable(text: str) -> Variable:
    """A variable as it is written on the command line; raises SdasError that says how."""
    found = WORD.fullmatch(text.strip())
    if found is None or found["kind"] not in KINDS:
        raise SdasError(f"a variable is written {FORMS}, with atoms counted from 0; got {text!r}")
    kind, atoms = found["kind"], [int(word) for word in found["atoms"].split(",")]
    right = len(atoms) >= 2 if kind == "coordination" else len(atoms) == KINDS[kind]
    if not right or len(set(atoms)) != len(atoms):
        raise SdasError(f"{text}: wants {KINDS[kind]} different atoms, as in {FORMS}")
    if (found["radius"] is not None) != (kind == "coordination"):
        raise SdasError(f"{text}: a radius in Å stands after the atoms of a coordination, and only there: {FORMS}")
    if kind == "distance":
        return Variable(text, ((atoms[0], atoms[1]),), lambda v: v[:, 0].norm(dim=1), "Å")
    if kind == "difference":
        return Variable(text, tuple(pairwise(atoms)), lambda v: v[:, 0].norm(dim=1) - v[:, 1].norm(dim=1), "Å")
    if kind == "angle":
        return Variable(text, ((atoms[1], atoms[0]), (atoms[1], atoms[2])), _angle, "°")
    if kind == "dihedral":
        return Variable(text, tuple(pairwise(atoms)), _dihedral, "°", 360.0)
    radius = float(found["radius"])
    if not radius > 0:
        raise SdasError(f"{text}: the radius must be positive")
    return Variable(text, _spokes(atoms), lambda v: (1 / (1 + (v.norm(dim=2) / radius) ** 6)).sum(1), "")


def _to_nearest(vectors: torch.Tensor, cells: torch.Tensor, pbc: torch.Tensor) -> torch.Tensor:
    """What is to be added to vectors `[B, P, 3]`: the best of 27 about what rounding gives, for skewed cells."""
    rounded = -torch.linalg.solve(cells, vectors, left=False).round()
    around = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=vectors.dtype, device=vectors.device)] * 3)
    turns = (rounded[:, :, None] + around) * pbc[:, None, None, :]
    shifts = turns @ cells[:, None]
    best = (vectors[:, :, None] + shifts).square().sum(-1).argmin(2)
    return shifts.gather(2, best[:, :, None, None].expand(-1, -1, 1, 3)).squeeze(2)


def _spokes(atoms: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((atoms[0], other) for other in atoms[1:])


def _angle(vectors: torch.Tensor) -> torch.Tensor:
    """By the arc tangent, whose gradient is right near 0 and 180 degrees too."""
    a, b = vectors[:, 0], vectors[:, 1]
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=1), (a * b).sum(1)))


def _dihedral(vectors: torch.Tensor) -> torch.Tensor:
    a, b, c = vectors.unbind(1)
    first, second = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    sine = (torch.linalg.cross(first, second) * b).sum(1) / b.norm(dim=1)
    return torch.rad2deg(torch.atan2(sine, (first * second).sum(1)))
