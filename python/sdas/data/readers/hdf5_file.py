"""HDF5 files of others, read in blocks of rows: nothing outside the file is opened, and no size is believed.

A data set may say that its numbers lie in other files (external storage, virtual data sets, external links): those are
refused. Groups may be linked in circles: each is visited once.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.readers.bounds import array_bytes, in_bounds, most_bytes, too_large

T = TypeVar("T")

HEAPS_CHECKED = 1 << 28
"""Bytes of the largest file whose heaps are looked through before the library is."""
_HEAP, _HEAP_HEAD, _HEAP_VERSION, _OBJECT_HEAD = b"GCOL", 16, 1, 16
MAGIC = b"\x89HDF\r\n\x1a\n"
BLOCK_BYTES = 1 << 20
"""Rows are read together up to that many bytes, and at least one."""
MOST_DEPTH = 20
"""Of groups within groups."""
UNIT_ATTRIBUTES = ("units", "unit", "u")


class Hdf5Data:
    """A data set called ``name``. shape: () of one value, None of none. kind: of its dtype, ``S`` for text.

    Iterating gives its rows along the first axis.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self._path, self._dataset, self.path_within = path, dataset, str(dataset.name)
        self.name = self.path_within.rpartition("/")[2]
        if dataset.is_virtual or dataset.external:
            raise DataError(f"{self.where}: its numbers lie in other files, which are not read")
        self.shape: tuple[int, ...] | None = dataset.shape
        self._text_objects = dataset.dtype.kind == "O" and dataset.dtype.metadata and "vlen" in dataset.dtype.metadata
        self.kind = "S" if self._text_objects else str(dataset.dtype.kind)

    @property
    def where(self) -> str:
        """The file and the name within it."""
        return f"{self._path}: {self.path_within}"

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __iter__(self) -> Iterator[NDArray[Any]]:
        self._check("biuf")
        size = array_bytes(self.shape[1:] if self.shape else (), self._dataset.dtype)
        count = max(1, BLOCK_BYTES // max(1, size))
        for start in range(0, len(self), count):
            yield from np.asarray(self._dataset[start : start + count])

    def whole(self) -> NDArray[Any]:
        """All of its numbers."""
        self._check("biuf")
        return np.asarray(self._dataset[()])

    def words(self) -> list[str]:
        """What it holds as text, one word for each value."""
        self._check("S")
        values = np.asarray(self._dataset[()]).reshape(-1).tolist()
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

    def unit(self) -> str | None:
        """The unit that its attributes name."""
        for name in UNIT_ATTRIBUTES:
            value = self._dataset.attrs.get(name)
            if isinstance(value, (str, bytes)):
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return None

    def _check(self, kinds: str) -> None:
        """Raise :class:`DataError` unless it is of one of these ``kinds`` and no larger than the file may make it."""
        dtype = self._dataset.dtype
        if self.shape is None or self.kind not in kinds or dtype.subdtype is not None:
            wanted = "text" if kinds == "S" else "numbers"
            raise DataError(f"{self.where}: holds {str(dtype)[:60]} where {wanted} are needed")
        needed = max(array_bytes(self.shape, dtype), array_bytes(self._dataset.chunks or (), dtype))
        if needed > most_bytes(self._path):
            raise too_large(self._path, f"the data set {self.path_within}")


class Hdf5Group:
    """A group: its data sets by name, the names of the groups in it, and its attributes that are text."""

    def __init__(self, path: Path, group: Any) -> None:
        from h5py import h5g

        self._path, self._group, self.name = path, group, str(group.name)
        self.data: dict[str, Hdf5Data] = {}
        self.groups: list[str] = []
        for name in group:
            kind = h5g.get_objinfo(group.id, name.encode(), follow_link=False).type
            if kind == h5g.GROUP:
                self.groups.append(name)
            elif kind == h5g.DATASET:
                self.data[name] = Hdf5Data(path, group[name])
            elif kind not in (h5g.LINK, h5g.TYPE):
                raise DataError(f"{self.where}: {name!r} lies in another file, which is not read")

    @property
    def where(self) -> str:
        """The file and the name within it."""
        return f"{self._path}: {self.name}"

    def attributes(self) -> dict[str, str]:
        """The attributes that are text."""
        return {name: value for name, value in self._group.attrs.items() if isinstance(value, str)}

    def group(self, name: str) -> Hdf5Group:
        """The group ``name`` in this one."""
        return Hdf5Group(self._path, self._group[name])

    def take_in(self, name: str) -> None:
        """Add the data sets of the group ``name`` in this one to its own."""
        self.data = {**self.group(name).data, **self.data}

    def walk(self, visited: set[tuple[Any, ...]] | None = None, depth: int = 0) -> Iterator[Hdf5Group]:
        """This group and all below it in the order of their names, each once."""
        from h5py import h5o

        visited = set() if visited is None else visited
        info = h5o.get_info(self._group.id)
        if (info.fileno, info.addr) in visited:
            return
        if depth > MOST_DEPTH:
            raise DataError(f"{self.where}: groups lie deeper in each other than {MOST_DEPTH}")
        visited.add((info.fileno, info.addr))
        yield self
        for name in self.groups:
            yield from self.group(name).walk(visited, depth + 1)


def groups_of(path: Path) -> Iterator[Hdf5Group]:
    """Every group of the HDF5 file ``path``, its root first; the file is open as long as this iterator lives."""
    import h5py  # takes a tenth of a second

    if path.stat().st_size <= HEAPS_CHECKED:
        _check_heaps(path)
    with h5py.File(path, "r") as file:
        yield from Hdf5Group(path, file["/"]).walk()


def _check_heaps(path: Path) -> None:
    """Raise :class:`DataError` for a heap of text that HDF5's library would go through without an end.

    A global heap is ``GCOL``, a version and its size, then objects of an index, a count and a size. Free space has the
    index 0, and a size that takes in its own head: of size 0 it leads to itself.
    """
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        start = content.find(_HEAP)
        while start >= 0:
            head = content[start : start + _HEAP_HEAD]
            place, end = start + _HEAP_HEAD, start + int.from_bytes(head[8:], "little")
            while head[4] == _HEAP_VERSION and place + _OBJECT_HEAD <= min(end, len(content)):
                index = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + _OBJECT_HEAD], "little")
                if index == 0 and size == 0:
                    raise DataError(f"{path}: not a sound HDF5 file: a heap at byte {start} is damaged")
                place += _OBJECT_HEAD + (size + 7) // 8 * 8 if index else size
            start = content.find(_HEAP, start + 1)


def is_hdf5(path: Path) -> bool:
    """Whether ``path`` begins as HDF5 files do."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def sound(items: Iterator[T], path: Path) -> Iterator[T]:
    """``items`` read from the HDF5 file ``path`` in bounded memory; what HDF5 finds wrong is a :class:`DataError`."""
    try:
        yield from in_bounds(items, path)
    except DataError:
        raise
    except Exception as error:  # h5py raises whatever the library's messages are turned into
        raise DataError(f"{path}: not a sound HDF5 file: {type(error).__name__}: {str(error)[:200]}") from error
