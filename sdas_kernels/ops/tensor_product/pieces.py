"""Pieces of a specification that fit in a GPU thread's registers, as the Triton kernels unroll them.

A piece is some families of kernel paths (`tables.py`) of one kind: the same operand and number of channels, the same
number of members, the second operand uniform or with channels. Its rows are the components of its entries of both
operands; a group is the paths to one entry of the result. Where several pieces reach the same entry, each writes a part
of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import NamedTuple

from torch import Tensor

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.ops.tensor_product.tables import OUT, Path, View, X, scaled_coupling

Terms = tuple[tuple[int, float], ...]
# For each component of a result: (component of the outer factor, ((one of the inner factor, coefficient), ..)), ..
Contraction = tuple[tuple[tuple[int, Terms], ...], ...]

CHANNELS = 32  # of a program: one per thread
TERMS = 3000  # coefficients of one launch, which are compiled in seconds


class Family(NamedTuple):
    """Kernel paths alike but for regular steps: the first, how many there are, and from one to the next."""

    path: Path
    members: int
    second_step: int
    out_step: int
    weight_step: int

    @classmethod
    def of(cls, paths: list[Path]) -> Family:
        """From its members."""
        path, other = paths[0], paths[min(1, len(paths) - 1)]
        starts = [p.second.offset if isinstance(p.second, View) else p.second[1] for p in (path, other)]
        steps = starts[1] - starts[0], other.out.offset - path.out.offset, other.weight - path.weight
        return cls(path, len(paths), *steps)

    @property
    def kind(self) -> tuple[int, ...]:
        """What the families of a piece share."""
        path, uniform = self.path, not isinstance(self.path.second, View)
        return path.first.array, path.out.mul, self.members, uniform, bool(self.out_step) and self.members > 1

    @property
    def second(self) -> tuple[int, ...]:
        """Array, offset and components of the second operand's entry."""
        second = self.path.second
        return (second.array, second.offset, second.dim) if isinstance(second, View) else second

    @property
    def terms(self) -> int:
        """Coefficients."""
        return int(wigner_3j(*self.path.coupling[:3]).count_nonzero())


@dataclass(frozen=True, eq=False, repr=False)
class Piece:
    """Some families as a kernel unrolls them.

    Compared and hashed by identity, so that a launch does not hash its tables. Its `repr`, part of the names under
    which compiled kernels are kept, is a digest of them.
    """

    first_is_x: bool
    uniform: bool
    mul: int
    members: int
    stepped: bool  # whether each member has a result of its own
    first: tuple[tuple[int, int], ...]  # of each row of the first operand: its place, the step of a channel
    second: tuple[tuple[int, int], ...]  # of each row of the second: its place, the step of a channel or a member
    first_part: tuple[int, ...]  # of each row of the first operand: among the parts of its gradient
    second_part: tuple[int, ...]
    # Of each group: place of component 0, its multiple of the batch, steps of a sample, channel, component and member,
    # its part, components.
    out: tuple[tuple[int, ...], ...]
    # Of each path of each group: its first rows of both operands, and its weight's place (-1: none), channel, member.
    path: tuple[tuple[tuple[int, ...], ...], ...]
    # Of each path of each group, the contractions to the result (first, second), to the first operand's gradient
    # (result, second) and to the second's (result, first).
    to_out: tuple[tuple[Contraction, ...], ...]
    to_first: tuple[tuple[Contraction, ...], ...]
    to_second: tuple[tuple[Contraction, ...], ...]

    @cached_property
    def _digest(self) -> str:
        return sha256(repr(astuple(self)).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Piece({self._digest})"


@dataclass(frozen=True, eq=False)
class Launch:
    """Pieces of one launch."""

    pieces: tuple[Piece, ...]
    mul: int  # the most channels of a piece


@dataclass(frozen=True)
class Plan:
    """All launches of one kernel, and in how many parts it writes each of x, y and the result."""

    launches: tuple[Launch, ...]
    parts: tuple[int, int, int]
    complete: tuple[bool, bool, bool]  # whether it writes every number of every part


class Rows(NamedTuple):
    """Components that the families of a piece have between them."""

    first: int
    second: int
    result: int  # of the largest entry
    results: int  # of all entries

    @classmethod
    def of(cls, families: list[Family]) -> Rows:
        """Each entry counts once."""
        first = {family.path.first for family in families}
        second = {family.second for family in families}
        results = [view.dim for view in {family.path.out for family in families}]
        return cls(sum(view.dim for view in first), sum(entry[2] for entry in second), max(results), sum(results))


class Pieces:
    """Families of paths, divided for each kernel when it first asks."""

    def __init__(
        self, families: list[Family], gaps: list[tuple[int, int, int]], dims: tuple[int, int, int], budget: int
    ) -> None:
        self.families, self.gaps, self.dims, self.budget = families, gaps, dims, budget

    @cached_property
    def by_result(self) -> Plan:
        """For the kernel that sums results: paths to one entry of the result stay together."""
        families = sorted(self.families, key=lambda f: (f.kind, f.path.out, f.path.first, f.second))
        return self.plan(families, lambda rows: 2 * (rows.first + rows.second + rows.result))

    @cached_property
    def by_operand(self) -> Plan:
        """For the kernels that make gradients: paths from one entry of the first operand stay together."""
        return self.plan(self.from_first, lambda rows: 3 * (rows.first + rows.second) + 2 * rows.result)

    @property
    def from_first(self) -> list[Family]:
        """Families in the order of their first operands."""
        return sorted(self.families, key=lambda f: (f.kind, f.path.first, f.second, f.path.out))

    def plan(self, families: list[Family], registers: Callable[[Rows], int]) -> Plan:
        """Pieces of families in an order that keeps together what shares rows; `registers`: what a kernel needs."""
        groups: list[list[Family]] = []
        for family in families:
            together = groups and groups[-1][0].kind == family.kind
            if together and registers(Rows.of([*groups[-1], family])) <= self.budget:
                groups[-1].append(family)
            else:
                groups.append([family])
        parts = _Parts()
        launches: list[list[Piece]] = []
        terms = TERMS
        for group in groups:
            count = sum(family.terms for family in group)
            if terms + count > TERMS:
                launches.append([])
                terms = 0
            launches[-1].append(_piece(group, parts))
            terms += count
        made = tuple(Launch(tuple(pieces), max(piece.mul for piece in pieces)) for pieces in launches)
        x, y, out = (parts.of(array, dim) for array, dim in enumerate(self.dims))
        return Plan(made, (x[0], y[0], out[0]), (x[1], y[1], out[1]))


class _Parts:
    """Counts by how many programs each entry of an array is written."""

    def __init__(self) -> None:
        self.writers: dict[tuple[int, int], int] = {}  # by array and offset
        self.sizes: dict[tuple[int, int], int] = {}

    def add(self, array: int, offset: int, size: int, writers: int = 1) -> int:
        """The first part of `writers` new ones."""
        before = self.writers.get((array, offset), 0)
        self.writers[array, offset], self.sizes[array, offset] = before + writers, size
        return before

    def of(self, array: int, dim: int) -> tuple[int, bool]:
        """The number of parts, and whether all of them are written everywhere."""
        counts = [count for key, count in self.writers.items() if key[0] == array]
        size = sum(size for key, size in self.sizes.items() if key[0] == array)
        return max(counts, default=1), size == dim and len(set(counts)) == 1


def blocks(mul: int) -> int:
    """Programs that share the channels of a piece."""
    return -(-mul // CHANNELS)


def _piece(families: list[Family], parts: _Parts) -> Piece:
    path, members, *_ = families[0]
    mul, uniform, second_array = path.out.mul, not isinstance(path.second, View), families[0].second[0]
    first, second = _Places(), _Places()
    groups: dict[View, list[tuple[tuple[int, ...], tuple[Contraction, ...]]]] = {}
    steps = {}
    for family in families:
        p, (_, offset, dim) = family.path, family.second
        i, j = (
            first.place(p.first.offset, dim=p.first.dim, step=p.first.dim),
            second.place(offset, dim=dim, step=family.second_step if uniform else dim),
        )
        weight = (p.weight, p.weight_channel, family.weight_step)
        groups.setdefault(p.out, []).append(((i, j, *weight), _contractions(p.coupling)))
        steps[p.out] = family.out_step
    first_part = [parts.add(path.first.array, offset, mul * dim) for offset, dim in first.entries]
    writers = blocks(mul) if uniform else 1
    size = members if uniform else mul
    second_part = [parts.add(second_array, offset, size * dim, writers) for offset, dim in second.entries]
    out = [
        (
            v.offset,
            v.per_batch,
            v.sample,
            v.channel,
            v.component,
            steps[v],
            parts.add(OUT, v.offset, v.mul * v.dim),
            v.dim,
        )
        for v in groups
    ]
    tables = [[contractions for _, contractions in group] for group in groups.values()]
    return Piece(
        path.first.array == X,
        uniform,
        mul,
        members,
        families[0].kind[-1] == 1,
        tuple(first.rows),
        tuple(second.rows),
        first.spread(first_part),
        second.spread(second_part),
        tuple(out),
        tuple(tuple(place for place, _ in group) for group in groups.values()),
        *(tuple(tuple(c[n] for c in group) for group in tables) for n in range(3)),
    )


class _Places:
    """Components of the entries of an operand, each with its place and the step to its next."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self.entries: dict[tuple[int, int], int] = {}  # offset and components -> first row

    def place(self, offset: int, dim: int, step: int) -> int:
        if (offset, dim) not in self.entries:
            self.entries[offset, dim] = len(self.rows)
            self.rows += [(offset + k, step) for k in range(dim)]
        return self.entries[offset, dim]

    def spread(self, values: list[int]) -> tuple[int, ...]:
        """A value for each row from one for each entry."""
        return tuple(value for value, (_, dim) in zip(values, self.entries, strict=True) for _ in range(dim))


@lru_cache(maxsize=4096)
def _contractions(coupling: tuple[int, int, int, float, bool]) -> tuple[Contraction, Contraction, Contraction]:
    """To the result, the first and the second operand."""
    c = scaled_coupling(*coupling)
    return _contraction(c.permute(2, 0, 1)), _contraction(c.permute(0, 2, 1)), _contraction(c.permute(1, 2, 0))


def _contraction(c: Tensor) -> Contraction:
    """Of coefficients [result, outer factor, inner factor]."""
    found = []
    for matrix in c.tolist():
        rows = [tuple((n, value) for n, value in enumerate(row) if value) for row in matrix]
        found.append(tuple((n, row) for n, row in enumerate(rows) if row))
    return tuple(found)
