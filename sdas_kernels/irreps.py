"""Irreducible representations of O(3), and the three memory layouts of features that carry them.

An irrep of degree l and parity p is written `1o` (l = 1, odd). `Irreps` is a list of them with multiplicities, written
`32x0e+16x1o`. Three layouts hold the same numbers, for each entry of multiplicity `mul` and dimension 2l+1:

    mul_ir   [.., mul, 2l+1] flattened, entry after entry     e3nn
    ir_mul   [.., 2l+1, mul] flattened, entry after entry     cuequivariance
    rows     [.., (lmax+1)², C], channel innermost            this library: degrees 0..lmax, each C times
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch

LAYOUTS = ("mul_ir", "ir_mul", "rows")
_PARITY = {"e": 1, "o": -1}
_IRREP = re.compile(r"(\d+)([eo])")
_ENTRY = re.compile(r"(?:(\d+)\s*x\s*)?(\d+[eo])")


class _Degree(NamedTuple):
    l: int
    p: int


class Irrep(_Degree):
    """One irrep of O(3): degree `l` >= 0 and parity `p`, 1 (even) or -1 (odd).

    Made from `Irrep(1, -1)`, `Irrep("1o")`, `Irrep((1, -1))`, or any object that has `l` and `p`, such as an irrep of
    e3nn or of cuequivariance's O3. Raises `ValueError` for anything else.
    """

    __slots__ = ()

    def __new__(cls, l: Any, p: int | None = None) -> Irrep:
        given = l if p is None else (l, p)
        if isinstance(given, str):
            match = _IRREP.fullmatch(given.strip())
            if match is None:
                raise ValueError(f"irrep {given!r}: write a degree and a parity, like '1o' or '2e'")
            degree, parity = int(match[1]), _PARITY[match[2]]
        elif hasattr(given, "l") and hasattr(given, "p"):
            degree, parity = given.l, given.p
        elif isinstance(given, tuple) and len(given) == 2:
            degree, parity = given
        else:
            raise ValueError(f"irrep {given!r}: give '1o', (l, p), or an object with l and p (degree and parity)")
        if degree != int(degree) or degree < 0 or parity not in (1, -1):
            raise ValueError(f"irrep (l, p) = {(degree, parity)}: l must be an integer >= 0, and p must be 1 or -1")
        return super().__new__(cls, int(degree), int(parity))

    @property
    def dim(self) -> int:
        """2l + 1."""
        return 2 * self.l + 1

    def __mul__(self, other: Any) -> Iterator[Irrep]:  # type: ignore[override]
        """The irreps of the product with another: |l1 - l2| .. l1 + l2, by ascending degree."""
        other = Irrep(other)
        for l in range(abs(self.l - other.l), self.l + other.l + 1):
            yield Irrep(l, self.p * other.p)

    def __repr__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"

    __str__ = __repr__


class MulIrrep(NamedTuple):
    """An irrep and how many times it occurs."""

    mul: int
    ir: Irrep

    @property
    def dim(self) -> int:
        """mul · (2l + 1)."""
        return self.mul * self.ir.dim

    def __repr__(self) -> str:
        return f"{self.mul}x{self.ir}"


class Irreps(tuple[MulIrrep, ...]):
    """Irreps with multiplicities, in the order in which their components lie in memory. Immutable and hashable.

    Made from a string (`"32x0e+16x1o"`, a bare `1o` counts once), from an iterable of `(mul, irrep)` or bare irreps, or
    from an `Irreps` of e3nn or of cuequivariance (group O3). An entry may have multiplicity 0. Raises `ValueError` for
    anything else.
    """

    __slots__ = ()

    def __new__(cls, irreps: Any = ()) -> Irreps:
        if isinstance(irreps, Irreps):
            return irreps
        if isinstance(irreps, str):
            entries: Iterable[MulIrrep] = _parse(irreps)
        elif hasattr(irreps, "l") and hasattr(irreps, "p"):
            entries = [MulIrrep(1, Irrep(irreps))]
        elif isinstance(irreps, Iterable):
            entries = [_entry(entry) for entry in irreps]
        else:
            raise ValueError(f"irreps {irreps!r}: give a string like '32x0e+16x1o' or a list of (mul, irrep)")
        return super().__new__(cls, tuple(entries))

    @classmethod
    def spherical_harmonics(cls, lmax: int, parity: int = -1) -> Irreps:
        """Degrees 0..lmax once each, with the parities of the harmonics of a vector (-1) or a pseudovector (1)."""
        return cls([(1, Irrep(l, parity**l)) for l in range(lmax + 1)])

    @property
    def dim(self) -> int:
        """Number of components."""
        return sum(entry.dim for entry in self)

    @property
    def num_irreps(self) -> int:
        """Number of irreps, multiplicities counted."""
        return sum(entry.mul for entry in self)

    @property
    def lmax(self) -> int:
        """Highest degree that occurs at least once. Raises `ValueError` where none does."""
        if self.num_irreps == 0:
            raise ValueError(f"irreps {str(self)!r} hold no irrep, so they have no lmax")
        return max(self.ls)

    @property
    def ls(self) -> list[int]:
        """The degree of every irrep, multiplicities counted."""
        return [entry.ir.l for entry in self for _ in range(entry.mul)]

    def slices(self) -> list[slice]:
        """Where each entry's components lie, in the `mul_ir` and `ir_mul` layouts."""
        stops = [0]
        for entry in self:
            stops.append(stops[-1] + entry.dim)
        return [slice(start, stop) for start, stop in pairwise(stops)]

    def count(self, irrep: Any) -> int:
        """How often an irrep occurs, over all entries."""
        wanted = Irrep(irrep)
        return sum(entry.mul for entry in self if entry.ir == wanted)

    def simplify(self) -> Irreps:
        """The same representation: neighbors of one irrep joined, entries of multiplicity 0 left out."""
        joined: list[MulIrrep] = []
        for mul, ir in self:
            if joined and joined[-1].ir == ir:
                joined[-1] = MulIrrep(joined[-1].mul + mul, ir)
            elif mul > 0:
                joined.append(MulIrrep(mul, ir))
        return Irreps(joined)

    def sort(self) -> tuple[Irreps, tuple[int, ...]]:
        """Entries by degree, of one degree the odd ones first; ties keep their order.

        Returns the sorted irreps and, for each old entry, its new place.
        """
        order = sorted(range(len(self)), key=lambda i: (self[i].ir.l, self[i].ir.p))
        place = [0] * len(order)
        for new, old in enumerate(order):
            place[old] = new
        return Irreps([self[i] for i in order]), tuple(place)

    def __add__(self, other: Any) -> Irreps:
        return Irreps([*self, *Irreps(other)])

    def __repr__(self) -> str:
        return "+".join(map(repr, self))

    __str__ = __repr__


def _parse(text: str) -> list[MulIrrep]:
    if not text.strip():
        return []
    entries = []
    for part in text.split("+"):
        match = _ENTRY.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"irreps {text!r}: {part.strip()!r} is not of the form '16x1o' or '1o'")
        entries.append(MulIrrep(int(match[1] or 1), Irrep(match[2])))
    return entries


def _entry(given: Any) -> MulIrrep:
    if isinstance(given, str) or (hasattr(given, "l") and hasattr(given, "p")):
        return MulIrrep(1, Irrep(given))
    if hasattr(given, "mul") and hasattr(given, "ir"):
        mul, ir = given.mul, given.ir
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        mul, ir = given
    else:
        raise ValueError(f"irreps entry {given!r}: give (mul, irrep) or an irrep")
    if mul != int(mul) or mul < 0:
        raise ValueError(f"irreps entry {given!r}: the multiplicity must be an integer >= 0")
    return MulIrrep(int(mul), Irrep(tuple(ir) if isinstance(ir, list) else ir))


def layout_name(layout: Any) -> str:
    """ "mul_ir", "ir_mul" or "rows", from the name or from cuequivariance's `IrrepsLayout`. Raises `ValueError`."""
    name = layout if isinstance(layout, str) else getattr(layout, "name", None)
    if name not in LAYOUTS:
        raise ValueError(f"layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    return str(name)


def to_layout(x: torch.Tensor, irreps: Any, source: Any, target: Any) -> torch.Tensor:
    """Features from one layout to another: "mul_ir", "ir_mul" (or cuequivariance's objects of these names), "rows".

    `[.., dim]`, or `[.., (lmax+1)², C]` for rows, which irreps of degrees 0..lmax in this order, each C times, have.
    Raises `ValueError` for an unknown layout, another shape, or irreps that have no rows.
    """
    source, target = layout_name(source), layout_name(target)
    if source == target:
        return x
    if source == "rows":
        return (mul_ir_from_rows if target == "mul_ir" else ir_mul_from_rows)(x, irreps)
    if target == "rows":
        return (rows_from_mul_ir if source == "mul_ir" else rows_from_ir_mul)(x, irreps)
    return (ir_mul_from_mul_ir if target == "ir_mul" else mul_ir_from_ir_mul)(x, irreps)


def ir_mul_from_mul_ir(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """e3nn's layout to cuequivariance's, `[.., dim]` -> `[.., dim]`. Raises `ValueError` for another last size."""
    return _by_entry(x, irreps, lambda entry: (entry.mul, entry.ir.dim))


def mul_ir_from_ir_mul(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """cuequivariance's layout to e3nn's, `[.., dim]` -> `[.., dim]`. Raises `ValueError` for another last size."""
    return _by_entry(x, irreps, lambda entry: (entry.ir.dim, entry.mul))


def rows_from_mul_ir(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """e3nn's layout to this library's, `[.., dim]` -> `[.., (lmax+1)², C]`.

    Raises `ValueError` unless the irreps are the degrees 0..lmax in this order, each C times (any parities).
    """
    return rows_from_ir_mul(ir_mul_from_mul_ir(x, irreps), irreps)


def mul_ir_from_rows(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """This library's layout to e3nn's, `[.., (lmax+1)², C]` -> `[.., dim]`; the inverse of `rows_from_mul_ir`."""
    return mul_ir_from_ir_mul(ir_mul_from_rows(x, irreps), irreps)


def rows_from_ir_mul(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """cuequivariance's layout to this library's, a view where possible; see `rows_from_mul_ir`."""
    irreps = Irreps(irreps)
    _check_dim(x, irreps)
    return x.reshape(*x.shape[:-1], *_rows_and_channels(irreps))


def ir_mul_from_rows(x: torch.Tensor, irreps: Any) -> torch.Tensor:
    """This library's layout to cuequivariance's, a view where possible; the inverse of `rows_from_ir_mul`."""
    shape = _rows_and_channels(Irreps(irreps))
    if x.shape[-2:] != shape:
        raise ValueError(f"features of {irreps} must be [.., {shape[0]}, {shape[1]}], got {list(x.shape)}")
    return x.flatten(-2)


def _by_entry(x: torch.Tensor, irreps: Any, shape: Callable[[MulIrrep], tuple[int, int]]) -> torch.Tensor:
    """Transpose the matrix of every entry."""
    irreps = Irreps(irreps)
    _check_dim(x, irreps)
    parts = x.split([entry.dim for entry in irreps], -1) if irreps else (x,)
    shapes = [shape(entry) for entry in irreps] or [(0, 0)]
    return torch.cat([p.unflatten(-1, s).transpose(-1, -2).flatten(-2) for p, s in zip(parts, shapes, strict=True)], -1)


def _check_dim(x: torch.Tensor, irreps: Irreps) -> None:
    if x.ndim < 1 or x.shape[-1] != irreps.dim:
        raise ValueError(f"features of {irreps} must be [.., {irreps.dim}], got {list(x.shape)}")


def _rows_and_channels(irreps: Irreps) -> tuple[int, int]:
    degrees, channels = [entry.ir.l for entry in irreps], {entry.mul for entry in irreps}
    if degrees != list(range(len(irreps))) or len(channels) != 1:
        raise ValueError(f"irreps {irreps} must be the degrees 0, 1, .. in this order, all of one multiplicity")
    return len(irreps) ** 2, channels.pop()
