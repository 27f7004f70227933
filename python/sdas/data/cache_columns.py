"""The arrays of a frame cache: memory maps, opened as one, and checked block by block as they are read."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sdas.data.cache_files import (
    BLOCK_BYTES,
    CHECKSUMS,
    CHUNK_BYTES,
    COLUMNS,
    FORMAT,
    HEADER_BYTES,
    MANIFEST,
    OPTIONAL,
    VERSION,
    fingerprint,
    npy_header,
)
from sdas.data.errors import DataError
from sdas.documents import CHECKSUM, check_seal, parse_json
from sdas.files import recover

Opener = Callable[[str], IO[bytes]]


class Column:
    """One array, read-only. What is read of it is first compared with its checksums, each block once.

    array: the memory map. checksums: CRC-32 of its blocks. what: the file, for messages.
    """

    def __init__(self, array: NDArray[Any], checksums: NDArray[np.uint32], what: str) -> None:
        self._array, self._checksums, self._what = array, checksums, what
        self._bytes = _bytes(array)
        self._row_bytes = array.itemsize * int(np.prod(array.shape[1:]))
        self._sound, self._unchecked = bytearray(len(checksums)), len(checksums)
        self._checking = threading.Lock()

    def __len__(self) -> int:
        return len(self._array)

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, a view; raises :class:`DataError` if their blocks are not what was written."""
        if self._unchecked:
            self._check(start * self._row_bytes // BLOCK_BYTES, -(-stop * self._row_bytes // BLOCK_BYTES))
        return self._array[start:stop]

    def row(self, index: int) -> NDArray[Any]:
        """Row ``index``, likewise."""
        return self.rows(index, index + 1)[0]

    def whole(self) -> NDArray[Any]:
        """All rows, likewise."""
        return self.rows(0, len(self._array))

    def sha256(self) -> str:
        """Of its data, whether they are what was written or not."""
        return _sha256(self._bytes)

    def _check(self, first: int, last: int) -> None:
        with self._checking:
            for block in range(first, last):
                if self._sound[block]:
                    continue
                start, stop = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
                if zlib.crc32(self._bytes[start:stop]) != self._checksums[block]:
                    where = f"bytes {HEADER_BYTES + start} to {HEADER_BYTES + min(stop, len(self._bytes))}"
                    raise DataError(
                        f"{self._what}: damaged frame cache: {where} are not what was written; convert again"
                    )
                self._sound[block] = 1
                self._unchecked -= 1


def open_columns(folder: Path) -> tuple[dict[str, Any], dict[str, Column]]:
    """The manifest of the cache in ``folder`` and its arrays, all of one generation; raises :class:`DataError`.

    The files are opened within one open folder, and opened anew if it is replaced or written to meanwhile.
    """
    while True:
        recover(folder)
        before = _state(folder)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return _open_within(folder, descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            if _state(folder) == before:
                raise DataError(f"{folder} does not exist") from None
        except NotADirectoryError:
            raise DataError(f"{folder} is not a frame cache: it is no folder") from None
        except DataError:
            if _state(folder) == before:
                raise


def _state(folder: Path) -> list[tuple[int, int, int] | None]:
    """Changes when the folder or its manifest is replaced or written."""
    return [_stamp(folder), _stamp(folder / MANIFEST)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _open_within(folder: Path, descriptor: int) -> tuple[dict[str, Any], dict[str, Column]]:
    def within(name: str) -> IO[bytes]:
        try:
            return open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=descriptor))
        except FileNotFoundError:
            fault = f"{folder}: damaged frame cache: {name} is missing; convert again"
            if name == MANIFEST:
                fault = f"{folder} is not a frame cache: it has no {MANIFEST}; make one with 'sdas data convert'"
            raise DataError(fault) from None

    manifest = _read_manifest(folder, within)
    names = [*COLUMNS, *(name for name in OPTIONAL if name in manifest["arrays"])]
    arrays = {name: _map(folder, within, name, manifest) for name in names}
    if manifest["version"] == VERSION:
        checksums = _read_checksums(folder, within, manifest, arrays)
    else:
        checksums = _checksums_of_version_1(folder, manifest, arrays)
    return manifest, {name: Column(arrays[name], checksums[name], str(folder / f"{name}.npy")) for name in names}


def _read_manifest(folder: Path, within: Opener) -> dict[str, Any]:
    """The manifest, its format, version and checksums checked."""
    path = folder / MANIFEST
    with within(MANIFEST) as file:
        manifest = parse_json(file.read(), path, DataError, "convert again")
    if manifest.get("format") != FORMAT or manifest.get("version") not in (1, VERSION):
        found = f"format {manifest.get('format')!r} version {manifest.get('version')!r}"
        raise DataError(f"{folder}: {found}, this release reads {FORMAT!r} {VERSION}")
    if manifest["version"] == VERSION or CHECKSUM in manifest:
        check_seal(manifest, path, DataError, "convert again")
        return manifest
    try:
        species, arrays = [int(number) for number in manifest["species"]], manifest["arrays"]
        sizes = {name: (tuple(entry["shape"]), entry["bytes"]) for name, entry in arrays.items()}
        known = set(sizes) - set(OPTIONAL) == set(COLUMNS)
        whole = species and known and manifest["fingerprint"] == fingerprint(arrays)
    except (KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged: its fingerprint does not match its checksums; convert again")
    return manifest


def _map(folder: Path, within: Opener, name: str, manifest: dict[str, Any]) -> NDArray[Any]:
    """The array ``name`` as a memory map; its size and header agree with the manifest."""
    dtype, entry = (COLUMNS | OPTIONAL)[name][0], manifest["arrays"][name]
    shape, what = tuple(entry["shape"]), f"{folder}: damaged frame cache"
    with within(f"{name}.npy") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["bytes"]:
            raise DataError(f"{what}: {name}.npy has {size} bytes instead of {entry['bytes']}; convert again")
        if file.read(HEADER_BYTES) != npy_header(dtype, shape, manifest.get("generation", "")):
            raise DataError(f"{what}: the header of {name}.npy disagrees with {MANIFEST}, or is of another cache")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=shape))


def _read_checksums(
    folder: Path, within: Opener, manifest: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> dict[str, NDArray[np.uint32]]:
    counts = [-(-array.nbytes // BLOCK_BYTES) for array in arrays.values()]
    with within(CHECKSUMS) as file:
        header, data = file.read(HEADER_BYTES), file.read()
    sound = header == npy_header("<u4", (sum(counts),), manifest["generation"])
    if not sound or hashlib.sha256(data).hexdigest() != manifest["checksums"]:
        raise DataError(f"{folder}: damaged frame cache: {CHECKSUMS} is damaged, or of another cache; convert again")
    parts = np.split(np.frombuffer(data, "<u4"), np.cumsum(counts)[:-1])
    return dict(zip(arrays, parts, strict=True))


def _checksums_of_version_1(
    folder: Path, manifest: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> dict[str, NDArray[np.uint32]]:
    """Checksums that the cache has not: made now, of arrays that are read whole to compare them with their SHA-256."""
    warnings.warn(
        f"{folder}: a frame cache of version 1, without checksums of blocks: it is read whole to check it. "
        "'sdas data convert' makes one of version 2 of it",
        stacklevel=5,
    )
    made = {}
    for name, array in arrays.items():
        data = _bytes(array)
        if _sha256(data) != manifest["arrays"][name]["sha256"]:
            raise DataError(f"{folder}: damaged frame cache: the content of {name}.npy changed; convert again")
        blocks = range(0, len(data), BLOCK_BYTES)
        made[name] = np.array([zlib.crc32(data[start : start + BLOCK_BYTES]) for start in blocks], np.uint32)
    return made


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _sha256(data: memoryview) -> str:
    """Of the bytes, read in chunks."""
    digest = hashlib.sha256()
    for start in range(0, len(data), CHUNK_BYTES):
        digest.update(data[start : start + CHUNK_BYTES])
    return digest.hexdigest()
