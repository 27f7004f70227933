"""The files of a frame cache: arrays in .npy format written in one pass, their checksums, and their manifest.

meta.json        sealed JSON: what the cache holds, and its generation, an identifier that no two caches share
NAME.npy         an array of :data:`COLUMNS`; its header carries the generation
checksums.npy    uint32: the CRC-32 of every block of 64 KiB of every array, in the order of COLUMNS, then OPTIONAL
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.documents import write_document

FORMAT = "sdas frame cache"
VERSION = 2
MANIFEST, CHECKSUMS = "meta.json", "checksums.npy"
HEADER_BYTES = 128
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 1 << 16
"""Of data that share a checksum: little to read for a single frame, and few checksums for a large cache."""
UNITS = {"positions": "Å", "cells": "Å", "energies": "eV", "forces": "eV/Å", "stresses": "eV/Å³"}

COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "numbers": ("<i8", ()),
    "positions": ("<f8", (3,)),
    "forces": ("<f8", (3,)),
    "offsets": ("<i8", ()),
    "cells": ("<f8", (3, 3)),
    "pbc": ("|b1", (3,)),
    "energies": ("<f8", ()),
    "stresses": ("<f8", (3, 3)),
    "known": ("|u1", ()),
    "sources": ("|u1", ()),
    "source_offsets": ("<i8", ()),
}
"""Array name → dtype and shape of one row. Rows are atoms for numbers, positions and forces; frames for cells, pbc,
energies, stresses and known; UTF-8 bytes for sources; frames + 1 for both offsets."""
OPTIONAL: dict[str, tuple[str, tuple[int, ...]]] = {
    "weights": ("<f8", ()),
    "config_types": ("|u1", ()),
    "config_type_offsets": ("<i8", ()),
    "charges": ("<f8", ()),
    "spins": ("<f8", ()),
}
"""Likewise of what few data have: each of these lies in a cache only if one of its frames has something to say there.
Rows are frames for weights, charges and spins, NaN of a frame without; UTF-8 bytes for config_types, none of a frame
without; frames + 1 for its offsets."""


def npy_header(dtype: str, shape: tuple[int, ...], generation: str = "") -> bytes:
    """The .npy header (format version 1.0) padded to 128 bytes, to be rewritten once the length is known.

    The generation stands in it as a comment, which readers of .npy files skip.
    """
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += f" # {generation}" if generation else ""
    body = text.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode("ascii")


class CacheWriter:
    """Writes the files of a cache to a folder, row by row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation = secrets.token_hex(8)
        self._columns = {name: _ColumnWriter(folder, name, self._generation) for name in COLUMNS | OPTIONAL}

    def append(self, name: str, rows: NDArray[Any]) -> int:
        """Add ``rows``, of shape [k, *row_shape], to an array; returns how many rows it has now."""
        return self._columns[name].append(rows)

    def drop(self, name: str) -> None:
        """Leave an array of :data:`OPTIONAL` out."""
        self._columns.pop(name).close()
        (self._folder / f"{name}.npy").unlink()

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Complete the arrays, and write their checksums and the manifest, with ``facts`` in it."""
        arrays = {name: column.finish() for name, column in self._columns.items()}
        checksums = np.concatenate([np.frombuffer(column.checksums, np.uint32) for column in self._columns.values()])
        data = checksums.astype("<u4").tobytes()
        (self._folder / CHECKSUMS).write_bytes(npy_header("<u4", checksums.shape, self._generation) + data)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "generation": self._generation,
            "count": arrays["known"]["shape"][0],
            "atoms": arrays["numbers"]["shape"][0],
            "units": UNITS,
            "fingerprint": fingerprint(arrays),
            "arrays": arrays,
            "checksums": hashlib.sha256(data).hexdigest(),
        }
        write_document(self._folder / MANIFEST, {**manifest, **facts})

    def close(self) -> None:
        """Close the files, complete or not."""
        for column in self._columns.values():
            column.close()


class _ColumnWriter:
    """Appends rows to one .npy file, counting and hashing them on the way."""

    def __init__(self, folder: Path, name: str, generation: str) -> None:
        self.dtype, self.row_shape = (COLUMNS | OPTIONAL)[name]
        self.rows = 0
        self.checksums = array("I")
        self._generation = generation
        self._hash = hashlib.sha256()
        self._block_bytes, self._block_sum = 0, 0
        self._file = (folder / f"{name}.npy").open("wb", buffering=CHUNK_BYTES)
        self._file.write(npy_header(self.dtype, (0, *self.row_shape), generation))

    def append(self, rows: NDArray[Any]) -> int:
        data = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        self._hash.update(data)
        self._file.write(data)
        self._add_checksums(data)
        self.rows += len(rows)
        return self.rows

    def _add_checksums(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK_BYTES - self._block_bytes]
            self._block_sum = zlib.crc32(part, self._block_sum)
            self._block_bytes += len(part)
            if self._block_bytes == BLOCK_BYTES:
                self._end_block()
            rest = rest[len(part) :]

    def _end_block(self) -> None:
        self.checksums.append(self._block_sum)
        self._block_bytes, self._block_sum = 0, 0

    def finish(self) -> dict[str, Any]:
        """Write the final header, close the file, and return its entry for the manifest."""
        if self._block_bytes:
            self._end_block()
        shape = (self.rows, *self.row_shape)
        size = self._file.tell()
        self._file.seek(0)
        self._file.write(npy_header(self.dtype, shape, self._generation))
        self._file.close()
        return {"dtype": self.dtype, "shape": list(shape), "bytes": size, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        self._file.close()


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """One hash for the whole content: SHA-256 over the names and hashes of all arrays but the source strings."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if not name.startswith("source"):
            digest.update(f"{name} {arrays[name]['sha256']}\n".encode())
    return digest.hexdigest()
