"""Where a DeePMD system lies: .npy files in set folders, text files, or groups of an HDF5 file; all read alike.

A system has words (``type.raw``, ``type_map.raw``), a mark ``nopbc``, and sets of arrays with one row per frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.readers.hdf5_file import Hdf5Group
from sdas.data.readers.npy import map_array
from sdas.data.readers.text_lines import Lines


class Rows(Protocol):
    """One row of numbers per frame."""

    def __len__(self) -> int:
        """The number of frames."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The rows."""


class FrameSet(Protocol):
    """Arrays of the same frames. where: for messages. suffix: of the names of its files."""

    where: str
    suffix: str

    def names(self) -> list[str]:
        """Of the arrays, without suffix, sorted."""

    def rows(self, name: str) -> Rows:
        """The rows of an array that is there."""


class System(Protocol):
    """where: for messages. periodic: whether it is not marked by ``nopbc``."""

    where: str
    periodic: bool

    def words(self, name: str) -> list[str] | None:
        """The words of ``type.raw`` or ``type_map.raw``, None if there is no such file."""

    def sets(self) -> list[FrameSet]:
        """Its sets, in the order of their names; empty if there are none."""


class Folder:
    """A system in a folder: set folders with .npy files, or without any set text files beside ``type.raw``."""

    def __init__(self, path: Path) -> None:
        self._path, self.where = path, str(path)
        self.periodic = not (path / "nopbc").exists()

    def words(self, name: str) -> list[str] | None:
        """The words of the text file ``name``."""
        path = self._path / name
        try:
            return path.read_text(encoding="utf-8").split() if path.is_file() else None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text: {error.reason}") from None

    def sets(self) -> list[FrameSet]:
        """Its set folders, or itself if there are none and its coordinates are text."""
        folders = sorted(path for path in self._path.glob("set.*") if path.is_dir())
        if not folders and (self._path / "coord.raw").is_file():
            return [_TextSet(self._path)]
        return [_NpySet(folder) for folder in folders]


class _NpySet:
    suffix = ".npy"

    def __init__(self, folder: Path) -> None:
        self._folder, self.where = folder, str(folder)

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.npy"))

    def rows(self, name: str) -> Rows:
        path = self._folder / f"{name}.npy"
        array = map_array(path)
        if array.ndim < 1:
            raise DataError(f"{path}: holds one number where one row per frame is needed")
        return array


class _TextSet:
    suffix = ".raw"
    _WORDS = ("type", "type_map")

    def __init__(self, folder: Path) -> None:
        self._folder, self.where = folder, str(folder)

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.raw") if path.stem not in self._WORDS)

    def rows(self, name: str) -> Rows:
        return _TextRows(self._folder / f"{name}.raw")


class _TextRows:
    """The lines of a text file, each a row; it is read twice, and never held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with Lines(path) as lines:
            self._count = sum(1 for _ in iter(lines.next_filled, None))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NDArray[Any]]:
        with Lines(self._path) as lines:
            for line in iter(lines.next_filled, None):
                words = line.split()
                yield np.array(lines.numbers(words, len(words), "a row"))


class Hdf5System:
    """A system in a group of an HDF5 file, as dpdata writes: every file of a folder is a data set."""

    def __init__(self, group: Hdf5Group) -> None:
        self._group, self.where = group, group.where
        self.periodic = "nopbc" not in group.data

    def words(self, name: str) -> list[str] | None:
        """The words of the data set ``name``, numbers among them."""
        data = self._group.data.get(name)
        if data is None:
            return None
        return data.words() if data.kind == "S" else [str(value) for value in data.whole().reshape(-1).tolist()]

    def sets(self) -> list[FrameSet]:
        """Its groups that are called set.*."""
        return [_Hdf5Set(self._group.group(name)) for name in sorted(self._group.groups) if name.startswith("set.")]


class _Hdf5Set:
    suffix = ".npy"

    def __init__(self, group: Hdf5Group) -> None:
        self._group, self.where = group, group.where

    def names(self) -> list[str]:
        return sorted(name.removesuffix(self.suffix) for name in self._group.data)

    def rows(self, name: str) -> Rows:
        return self._group.data[f"{name}{self.suffix}"]
