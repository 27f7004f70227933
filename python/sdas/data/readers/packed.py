"""Files packed by gzip, bzip2 or xz: read forwards once, up to a bound, and never sought in.

To go back in a packed stream is to unpack it anew from its start. So these streams cannot be sought in, and a parser
that has to gets the whole file unpacked.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sdas.data.errors import DataError
from sdas.data.readers.bounds import most_bytes, too_large

OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".gzip": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class _Unpacking(io.RawIOBase):
    """What a packed file holds, up to the bound of :mod:`sdas.data.readers.bounds`."""

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, most_bytes(path)
        self._stream = OPENERS[path.suffix](path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = int(self._stream.readinto(buffer))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{self._path}: cannot be unpacked: {error}") from None
        self._left -= count
        if self._left < 0:
            raise too_large(self._path, "what is packed in it")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: Path) -> IO[bytes]:
    """The content of ``path``, unpacked if its suffix says that it is packed."""
    return io.BufferedReader(_Unpacking(path), 1 << 18) if path.suffix in OPENERS else open(path, "rb")


def open_text(path: Path) -> IO[str]:
    """The same as UTF-8 text."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """``path``, or a file with the content of a packed one, which is removed at the end."""
    if path.suffix not in OPENERS:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sdas-") as folder:
        plain = Path(folder) / path.stem
        with open_bytes(path) as source, open(plain, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield plain
