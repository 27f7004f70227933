"""How much memory and disk a foreign file may ask for, given its size: little files have no right to gigabytes."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from sdas.data.errors import DataError

T = TypeVar("T")

MOST_RATIO = 200
"""Bytes that a file may unfold to, for each of its own. Coordinates as text pack 2 to 6 times, zeros 1000 times."""
FREE_BYTES = 1 << 26
"""Bytes that any file may unfold to."""
PARSER_BYTES = 1 << 30
"""Memory that a parser of somebody else may take beyond that."""


def most_bytes(path: Path) -> int:
    """Bytes that the file ``path`` may unfold to."""
    return max(FREE_BYTES, MOST_RATIO * path.stat().st_size)


def too_large(path: Path, what: str) -> DataError:
    """The error for ``what`` in the file that would be larger than that."""
    return DataError(
        f"{path}: {what} would take more than {most_bytes(path) / 2**20:.0f} MiB, {MOST_RATIO} times the size of the "
        "file; if that is meant, unpack it first"
    )


def array_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array, for any numbers that a header may hold."""
    return math.prod(shape) * dtype.itemsize


@contextmanager
def _growth_limited(most: int, used: int | None) -> Iterator[None]:
    """Within, this process may not grow by more than ``most`` bytes beyond ``used``: more is a MemoryError.

    Where the system has no such limit or another one is set, nothing happens.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if used is None or soft != resource.RLIM_INFINITY:
        yield
        return
    limit = used + most
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def in_bounds(items: Iterator[T], path: Path) -> Iterator[T]:
    """``items``, each made in the memory that a parser of ``path`` has a right to.

    For the parsers of other packages, which believe the sizes that a file declares.
    """
    most = PARSER_BYTES + most_bytes(path)
    with _address_space() as used:
        while True:
            with _growth_limited(most, used()):
                try:
                    item = next(items)
                except StopIteration:
                    return
                except MemoryError:
                    raise DataError(
                        f"{path}: reading it takes more than {most / 2**20:.0f} MiB, which a file of "
                        f"{path.stat().st_size} bytes has no need of; do the sizes that it declares belong to it?"
                    ) from None
            yield item


@contextmanager
def _address_space() -> Iterator[Callable[[], int | None]]:
    """A function that gives the bytes of address space in use, None where the system does not tell."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)  # once: it is read before every frame
    except OSError:
        yield lambda: None
        return
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        yield lambda: int(os.pread(statm, 100, 0).split()[0]) * page
    finally:
        os.close(statm)
