"""How much memory and disk a foreign file may ask for, given its size: little files have no right to gigabytes."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
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
def parser_memory(path: Path) -> Iterator[None]:
    """Within, this process may not grow by more than a parser of ``path`` has a right to: more is a MemoryError.

    For the parsers of other packages, which believe the sizes that a file declares. Where the system has no such limit
    or another one is set, nothing happens.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = _address_space()
    if used is None or soft != resource.RLIM_INFINITY:
        yield
        return
    most = used + PARSER_BYTES + most_bytes(path)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def in_bounds(items: Iterator[T], path: Path) -> Iterator[T]:
    """``items``, each made within :func:`parser_memory`."""
    while True:
        with parser_memory(path):
            try:
                item = next(items)
            except StopIteration:
                return
            except MemoryError:
                most = (PARSER_BYTES + most_bytes(path)) / 2**20
                raise DataError(
                    f"{path}: reading it takes more than {most:.0f} MiB, which a file of {path.stat().st_size} bytes "
                    "has no need of; do the sizes that it declares belong to it?"
                ) from None
        yield item


def _address_space() -> int | None:
    """Bytes of address space in use, None where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
