"""Arrays inside an .npz file, read row by row: an archive of any size, compressed or not, in the memory of one row."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.readers.bounds import array_bytes, most_bytes, too_large
from sdas.data.readers.npy import read_header

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of compression: those that NumPy writes. Others give no way to unpack a bounded piece."""


class NpzStream:
    """An open .npz file. ``names`` are its arrays.

    No array may take more than a bounded multiple of the file's size (:mod:`sdas.data.readers.bounds`), nor more than
    there is of it. Arrays of Python objects are refused, they would need pickle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: not a complete .npz file ({error}); was it cut short in copying?") from None
        self.names = {n.removesuffix(".npy") for n in self._archive.namelist() if n.endswith(".npy")}

    def __enter__(self) -> NpzStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._archive.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of array ``name``, from its header alone."""
        with self._open(name) as member:
            return self._header(member, name)[0]

    def array(self, name: str) -> NDArray[Any]:
        """The whole array ``name``."""
        with self._open(name) as member:
            shape, fortran, dtype = self._header(member, name)
            data = self._exactly(member, array_bytes(shape, dtype), name, "")
            return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    def text(self, name: str) -> str | None:
        """The string stored under ``name``, or None if there is none."""
        if name not in self.names:
            return None
        value = self.array(name).reshape(-1)
        if value.size != 1:
            return None
        item = value[0]
        return item.decode() if isinstance(item, bytes) else str(item)

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """The rows of array ``name`` along its first axis, one at a time."""
        with self._open(name) as member:
            shape, fortran, dtype = self._header(member, name)
            if fortran or not shape:
                yield from np.atleast_1d(self.array(name))
                return
            size = array_bytes(shape[1:], dtype)
            for index in range(shape[0]):
                row = self._exactly(member, size, name, f" in row {index}")
                yield np.frombuffer(row, dtype=dtype).reshape(shape[1:])

    def _open(self, name: str) -> IO[bytes]:
        try:
            entry = self._archive.getinfo(f"{name}.npy")
            if entry.compress_type not in METHODS:
                raise DataError(f"{self.path}: array {name!r} is compressed in a way that NumPy does not write")
            if entry.file_size > max(most_bytes(self.path), entry.compress_size):
                raise too_large(self.path, f"array {name!r}")
            return self._archive.open(entry)
        except KeyError:
            raise DataError(f"{self.path}: no array {name!r}; it has {', '.join(sorted(self.names))}") from None
        except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError(f"{self.path}: array {name!r} is damaged: {error}") from None

    def _header(self, member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        shape, fortran, dtype = read_header(member, f"{self.path}: array {name!r}")
        needed, there = array_bytes(shape, dtype), self._archive.getinfo(f"{name}.npy").file_size - member.tell()
        if needed > there:
            raise DataError(f"{self.path}: array {name!r} is said to take {needed} bytes, there are {there}")
        return shape, fortran, dtype

    def _exactly(self, member: IO[bytes], size: int, name: str, where: str) -> bytes:
        buffer = io.BytesIO()
        try:
            while buffer.tell() < size and (piece := member.read(size - buffer.tell())):
                buffer.write(piece)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: array {name!r} is damaged{where}: {error}") from None
        if buffer.tell() < size:
            raise DataError(f"{self.path}: array {name!r} ends early{where}")
        return buffer.getvalue()
