"""The files of a frame cache: arrays in .npy format written in one pass, read as memory maps, and their manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError

FORMAT = "sdas frame cache"
VERSION = 1
MANIFEST = "meta.json"
HEADER_BYTES = 128
CHUNK_BYTES = 1 << 20
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


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The .npy header (format version 1.0) padded to 128 bytes, to be rewritten once the length is known."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    body = text.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode("ascii")


class ColumnWriter:
    """Appends rows to one .npy file, counting and hashing them on the way."""

    def __init__(self, folder: Path, name: str) -> None:
        self.dtype, self.row_shape = COLUMNS[name]
        self.rows = 0
        self._hash = hashlib.sha256()
        self._file = (folder / f"{name}.npy").open("wb", buffering=CHUNK_BYTES)
        self._file.write(npy_header(self.dtype, (0, *self.row_shape)))

    def append(self, rows: NDArray[Any]) -> None:
        """Add ``rows``, an array of shape [k, *row_shape]."""
        data = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        self._hash.update(data)
        self._file.write(data)
        self.rows += len(rows)

    def finish(self) -> dict[str, Any]:
        """Write the final header, close the file, and return its entry for the manifest."""
        shape = (self.rows, *self.row_shape)
        size = self._file.tell()
        self._file.seek(0)
        self._file.write(npy_header(self.dtype, shape))
        self._file.close()
        return {"dtype": self.dtype, "shape": list(shape), "bytes": size, "sha256": self._hash.hexdigest()}

    def abandon(self) -> None:
        """Close the file without finishing it."""
        self._file.close()


def fingerprint(arrays: dict[str, Any]) -> str:
    """One hash for the whole content: SHA-256 over the names and hashes of all arrays but the source strings."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if not name.startswith("source"):
            digest.update(f"{name} {arrays[name]['sha256']}\n".encode())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write meta.json."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the cache in ``folder``, its format, version and file sizes checked; raises DataError."""
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} is not a frame cache: it has no {MANIFEST}; make one with 'sdas data convert'")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        form, version, arrays = manifest["format"], manifest["version"], manifest["arrays"]
        stated = {name: (entry["dtype"], tuple(entry["shape"]), entry["bytes"]) for name, entry in arrays.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged or not of a frame cache ({error!r}); convert again") from None
    if form != FORMAT or version != VERSION:
        raise DataError(f"{folder}: format {form!r} version {version!r}, this release reads {FORMAT!r} {VERSION}")
    if set(stated) != set(COLUMNS):
        raise DataError(f"{folder / MANIFEST} lists arrays {sorted(stated)}, expected {sorted(COLUMNS)}; convert again")
    for name, (_, _, size) in stated.items():
        path = folder / f"{name}.npy"
        actual = path.stat().st_size if path.is_file() else None
        if actual != size:
            state = "is missing" if actual is None else f"has {actual} bytes instead of {size}"
            raise DataError(f"{folder}: damaged frame cache: {path.name} {state}; convert again")
    if manifest.get("fingerprint") != fingerprint(arrays):
        raise DataError(f"{folder / MANIFEST} is damaged: its fingerprint does not match its checksums; convert again")
    return dict(manifest)


def map_column(folder: Path, name: str, entry: dict[str, Any]) -> NDArray[Any]:
    """The array ``name`` as a read-only memory map whose header agrees with its manifest entry; raises DataError."""
    path = folder / f"{name}.npy"
    dtype, shape = COLUMNS[name][0], tuple(entry["shape"])
    with open(path, "rb") as file:
        if file.read(HEADER_BYTES) != npy_header(dtype, shape):
            raise DataError(f"{folder}: damaged frame cache: the header of {path.name} disagrees with {MANIFEST}")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=shape))


def column_checksum(folder: Path, name: str) -> str:
    """SHA-256 of the data in ``name``.npy, header left out, read in chunks."""
    digest = hashlib.sha256()
    with open(folder / f"{name}.npy", "rb") as file:
        file.seek(HEADER_BYTES)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
