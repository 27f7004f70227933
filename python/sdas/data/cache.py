"""The frame cache: labelled structures of any size as memory-mapped arrays, made in one pass over a stream.

A cache is a directory of .npy arrays and a ``meta.json``. It is written by :func:`sdas.files.new_folder`: a conversion
that is killed leaves at most a directory named ``.NAME.partial-…``, never a cache, and the next conversion to the same
place removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from sdas.data import cache_files
from sdas.data.errors import DataError
from sdas.data.frame import Frame, IntArray, check_frame
from sdas.data.reading_notes import ReadingNotes
from sdas.files import new_folder, recover
from sdas.reading_options import ReadingOptions

CELL, ENERGY, FORCES, STRESS = 1, 2, 4, 8
"""Bits of ``known``: what a frame has. What it has not is stored as NaN and given back as None."""


class FrameCache(Sequence[Frame]):
    """The frames of a cache directory, read where they lie: ``cache[i]`` copies no array.

    ``species`` is the sorted tuple of atomic numbers present, ``fingerprint`` a hash of the whole content,
    ``manifest`` the parsed meta.json. The attributes named like the arrays of
    :data:`sdas.data.cache_files.COLUMNS` are the memory maps themselves, with frame i in rows
    ``offsets[i]:offsets[i + 1]``. It can be sent to worker processes: only its path travels.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.species: tuple[int, ...] = tuple(manifest["species"])
        self.fingerprint: str = manifest["fingerprint"]
        columns = {name: cache_files.map_column(path, name, manifest["arrays"][name]) for name in cache_files.COLUMNS}
        self.numbers: IntArray = columns["numbers"]
        self.positions: NDArray[np.float64] = columns["positions"]
        self.forces: NDArray[np.float64] = columns["forces"]
        self.offsets: IntArray = columns["offsets"]
        self.cells: NDArray[np.float64] = columns["cells"]
        self.pbc: NDArray[np.bool_] = columns["pbc"]
        self.energies: NDArray[np.float64] = columns["energies"]
        self.stresses: NDArray[np.float64] = columns["stresses"]
        self.known: NDArray[np.uint8] = columns["known"]
        self._sources: NDArray[np.uint8] = columns["sources"]
        self._source_offsets: IntArray = columns["source_offsets"]
        self._count = len(self.known)
        self._check_lengths()

    @property
    def reading(self) -> dict[str, Any]:
        """How the sources were read: ``options`` that were not at their defaults, and what
        :meth:`sdas.data.reading_notes.ReadingNotes.document` says; empty for a cache of frames from elsewhere."""
        return dict(self.manifest.get("reading") or {})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FrameCache:
        """Open the cache at ``path``; raises :class:`DataError` if it is missing, truncated or of another version."""
        folder = Path(path)
        recover(folder)
        return cls(folder.resolve(), cache_files.read_manifest(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache.open, (str(self.path),)

    def _check_lengths(self) -> None:
        frames, atoms = self._count, len(self.numbers)
        rows = [len(a) for a in (self.cells, self.pbc, self.energies, self.stresses)]
        ends = ((self.offsets, atoms), (self._source_offsets, len(self._sources)))
        sound = rows == [frames] * 4 and len(self.positions) == len(self.forces) == atoms and frames > 0
        for offsets, last in ends:
            sound = sound and len(offsets) == frames + 1 and offsets[0] == 0 and offsets[-1] == last
        if not sound or (np.diff(self.offsets) < 1).any() or (np.diff(self._source_offsets) < 0).any():
            raise DataError(f"{self.path}: damaged frame cache: its arrays do not fit together; convert again")

    def verify(self) -> None:
        """Read everything and compare checksums; raises :class:`DataError` naming the first array that differs."""
        for name, entry in self.manifest["arrays"].items():
            if cache_files.column_checksum(self.path, name) != entry["sha256"]:
                raise DataError(f"{self.path}: damaged frame cache: the content of {name}.npy changed; convert again")

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """Frame ``index``, negative from the end; a slice gives a list of frames."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        i = self._position(index)
        atoms = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        known = int(self.known[i])
        return Frame(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cell=self.cells[i] if known & CELL else None,
            pbc=self.pbc[i],
            energy=float(self.energies[i]) if known & ENERGY else None,
            forces=self.forces[atoms] if known & FORCES else None,
            stress=self.stresses[i] if known & STRESS else None,
            source=self.source(i),
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(self._count))

    def _position(self, index: SupportsIndex) -> int:
        i = index.__index__()
        if not -self._count <= i < self._count:
            raise IndexError(f"frame {i} of a cache of {self._count} frames: {self.path}")
        return i % self._count

    def source(self, index: int) -> str:
        """Where frame ``index`` came from."""
        i = self._position(index)
        text = self._sources[self._source_offsets[i] : self._source_offsets[i + 1]]
        return bytes(text).decode("utf-8", "surrogateescape")

    def atom_counts(self) -> IntArray:
        """int64 [frames]: the number of atoms of every frame."""
        return np.diff(self.offsets)

    def composition(self, index: int) -> tuple[tuple[int, int], ...]:
        """(atomic number, count) pairs of frame ``index`` in the order of atomic number."""
        i = self._position(index)
        elements, counts = np.unique(self.numbers[self.offsets[i] : self.offsets[i + 1]], return_counts=True)
        return tuple(zip(elements.tolist(), counts.tolist(), strict=True))

    def has(self, label: str) -> bool:
        """Whether every frame has ``label``: ``energy``, ``forces`` or ``stress``."""
        bit = {"energy": ENERGY, "forces": FORCES, "stress": STRESS}[label]
        return bool((self.known & bit).all())


def write_cache(
    frames: Iterable[Frame],
    path: str | os.PathLike[str],
    *,
    require: Sequence[str] = (),
    overwrite: bool = False,
    options: ReadingOptions | None = None,
    notes: ReadingNotes | None = None,
) -> FrameCache:
    """Write ``frames`` to a new cache at ``path`` in one pass and bounded memory, and open it.

    Every frame is checked by :func:`sdas.data.frame.check_frame` with ``require``. ``options`` and ``notes`` of the
    reader go into the manifest: how the frames were read, and which were left out. An existing ``path`` is an error;
    with ``overwrite`` a cache there is replaced once the new one is complete, anything else there stays an error.
    Raises :class:`DataError` for zero frames.
    """
    target = Path(os.path.abspath(path))
    _check_place(target, overwrite)
    with new_folder(target) as partial:
        arrays, species = _write_columns(frames, partial, require)
        cache_files.write_manifest(partial, _manifest(arrays, species, options, notes))
        _check_place(target, overwrite)
    return FrameCache.open(target)


def _check_place(target: Path, overwrite: bool) -> None:
    recover(target)
    if target.exists() and not (overwrite and (target / cache_files.MANIFEST).is_file()):
        raise DataError(f"{target} exists already; choose another place, or overwrite=True (--overwrite) for a cache")


def _write_columns(
    frames: Iterable[Frame], folder: Path, require: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], set[int]]:
    """The manifest's entries of the arrays, and the elements in them."""
    columns = {name: cache_files.ColumnWriter(folder, name) for name in cache_files.COLUMNS}
    species: set[int] = set()
    try:
        columns["offsets"].append(np.zeros(1))
        columns["source_offsets"].append(np.zeros(1))
        for frame in frames:
            _append(columns, check_frame(frame, require))
            species.update(np.unique(frame.numbers).tolist())
        if columns["known"].rows == 0:
            raise DataError("there are no frames to write")
        return {name: column.finish() for name, column in columns.items()}, species
    finally:
        for column in columns.values():
            column.abandon()


def _manifest(
    arrays: dict[str, dict[str, Any]],
    species: set[int],
    options: ReadingOptions | None,
    notes: ReadingNotes | None,
) -> dict[str, Any]:
    reading = {"options": options.changed() if options else {}, **(notes.document() if notes else {})}
    return {
        "format": cache_files.FORMAT,
        "version": cache_files.VERSION,
        "count": arrays["known"]["shape"][0],
        "atoms": arrays["numbers"]["shape"][0],
        "species": sorted(species),
        "units": cache_files.UNITS,
        "fingerprint": cache_files.fingerprint(arrays),
        "arrays": arrays,
        "reading": reading if notes else None,
    }


def _append(columns: dict[str, cache_files.ColumnWriter], frame: Frame) -> None:
    unknown = np.full((3, 3), np.nan)
    known = 0
    for bit, value in ((CELL, frame.cell), (ENERGY, frame.energy), (FORCES, frame.forces), (STRESS, frame.stress)):
        known |= bit if value is not None else 0
    source = np.frombuffer(frame.source.encode("utf-8", "surrogateescape"), dtype=np.uint8)
    columns["numbers"].append(frame.numbers)
    columns["positions"].append(frame.positions)
    columns["forces"].append(np.full((len(frame), 3), np.nan) if frame.forces is None else frame.forces)
    columns["offsets"].append(np.array([columns["numbers"].rows]))
    columns["cells"].append((unknown if frame.cell is None else frame.cell)[None])
    columns["pbc"].append(frame.pbc[None])
    columns["energies"].append(np.array([np.nan if frame.energy is None else frame.energy]))
    columns["stresses"].append((unknown if frame.stress is None else frame.stress)[None])
    columns["known"].append(np.array([known]))
    columns["sources"].append(source)
    columns["source_offsets"].append(np.array([columns["sources"].rows]))
