# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="assignment,misc"
"""What the Triton kernels of spherical harmonics are unrolled with: sizes and factors known when they are compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import triton

from sdas_kernels.ops.spherical_harmonics.scale import factors

COLUMNS = 32  # that are exchanged at a time


@dataclass(frozen=True, eq=False)
class Table:
    """What a kernel is unrolled with, compared by identity so that a launch does not hash it.

    Its `repr` is part of the name under which a compiled kernel is kept.
    """

    size: int  # M
    width: int  # columns that are exchanged at a time, a power of two
    f: tuple[float, ...]  # F_lm


@cache
def table(lmax: int, normalization: str) -> Table:
    """Of all degrees up to `lmax`."""
    size = (lmax + 1) ** 2
    return Table(size, min(COLUMNS, triton.next_power_of_2(size)), factors(lmax, normalization))


@triton.constexpr_function
def f(table, l, m):
    """F_lm."""
    return table.f[l * (l + 1) // 2 + m]


@triton.constexpr_function
def size(table):
    """M."""
    return table.size


@triton.constexpr_function
def diagonal(l):
    """q_ll."""
    return 1 / (2**l * math.factorial(l))


@triton.constexpr_function
def columns_of(table):
    """Columns that are exchanged at a time."""
    return table.width


@triton.constexpr_function
def read_before(l, width):
    """Exchanges of columns that degrees below l need."""
    return -(-(l**2) // width)


@triton.constexpr_function
def written_before(l, width, lmax):
    """Exchanges of columns that degrees below l complete; after the last degree, all."""
    return -(-(l**2) // width) if l > lmax else l**2 // width


@triton.constexpr_function
def log2(number):
    """Of a power of two."""
    return number.bit_length() - 1


@triton.constexpr_function
def halved(number, times):
    """number / 2^times."""
    return number >> times
