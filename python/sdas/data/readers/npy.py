"""Arrays in NumPy's .npy format whose header is held against the bytes that follow it."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.readers.bounds import array_bytes

KINDS = "biufSU"
"""Kinds of dtype that are read: numbers and text. Objects would need pickle, and records have no use."""


def read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and dtype; raises :class:`DataError` for a header that is none of these."""
    try:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is Python's syntax, and fails in every way
        raise DataError(f"{where} has no valid header: {error}") from None
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled objects, which are not read; store plain numbers")
    if dtype.kind not in KINDS or dtype.names is not None or any(size < 0 for size in shape):
        raise DataError(f"{where} holds {str(dtype)[:60]} of shape {list(shape)}; store plain numbers")
    return shape, fortran, dtype


def map_array(path: Path) -> NDArray[Any]:
    """The array in the file ``path`` as a read-only memory map; raises :class:`DataError` if it is not all there."""
    with open(path, "rb") as file:
        shape, fortran, dtype = read_header(file, str(path))
        start = file.tell()
    there = path.stat().st_size - start
    needed = array_bytes(shape, dtype)
    if needed > there:
        raise DataError(f"{path}: not a complete .npy file: an array of {needed} bytes in {there}")
    if needed == 0:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C"))
