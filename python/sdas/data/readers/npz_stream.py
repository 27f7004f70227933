"""Arrays inside an .npz file, read row by row: an archive of any size, compressed or not, in the memory of one row."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sdas.data.errors import DataError


class NpzStream:
    """An open .npz file. ``names`` are its arrays; arrays of Python objects are refused, they would need pickle."""

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
            try:
                return np.asarray(npy_format.read_array(member, allow_pickle=False))
            except (ValueError, EOFError, zipfile.BadZipFile, OSError, zlib.error) as error:
                raise DataError(f"{self.path}: cannot read array {name!r}: {error}") from None

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
            size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            for index in range(shape[0]):
                yield np.frombuffer(self._exactly(member, size, name, index), dtype=dtype).reshape(shape[1:])

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._archive.open(f"{name}.npy")
        except KeyError:
            raise DataError(f"{self.path}: no array {name!r}; it has {', '.join(sorted(self.names))}") from None
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.path}: array {name!r} is damaged: {error}") from None

    def _header(self, member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = npy_format.read_magic(member)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = read(member)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.path}: array {name!r} has no valid header: {error}") from None
        if dtype.hasobject:
            raise DataError(
                f"{self.path}: array {name!r} holds pickled objects, which are not read; store plain numbers"
            )
        return shape, fortran, dtype

    def _exactly(self, member: IO[bytes], size: int, name: str, index: int) -> bytes:
        buffer = io.BytesIO()
        try:
            while buffer.tell() < size and (piece := member.read(size - buffer.tell())):
                buffer.write(piece)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path}: array {name!r} is damaged in row {index}: {error}") from None
        if buffer.tell() < size:
            raise DataError(f"{self.path}: array {name!r} ends within row {index}")
        return buffer.getvalue()
