"""The frame cache: labelled structures of any size as memory-mapped arrays, made in one pass over a stream.

A cache is a directory of .npy arrays and a ``meta.json``. It is written by :func:`sdas.files.new_folder`: a conversion
that is killed leaves at most a directory named ``.NAME.partial-…``, never a cache, and the next conversion to the same
place removes it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import ReadingOptions
from sdas.data.cache_columns import Column, open_columns
from sdas.data.cache_files import MANIFEST, OPTIONAL, CacheWriter
from sdas.data.errors import DataError
from sdas.data.frame import FloatArray, Frame, IntArray, check_frame
from sdas.data.reading_notes import ReadingNotes
from sdas.files import new_folder, recover

CELL, ENERGY, FORCES, STRESS = 1, 2, 4, 8
"""Bits of ``known``: what a frame has. What it has not is stored as NaN and given back as None."""


class FrameCache(Sequence[Frame]):
    """The frames of a cache directory, read where they lie: ``cache[i]`` copies no array.

    ``species`` is the sorted tuple of atomic numbers present, ``fingerprint`` a hash of the whole content, ``manifest``
    the parsed meta.json. Every block of the files is compared with its checksum when something in it is first read;
    :class:`DataError` names the file and the block that are not what was written. The cache can be sent to worker
    processes: only its path and its fingerprint travel.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], columns: Mapping[str, Column]) -> None:
        self.path = path
        self.manifest = manifest
        self.species: tuple[int, ...] = tuple(manifest["species"])
        self.fingerprint: str = manifest["fingerprint"]
        self._columns = columns
        self._offsets: IntArray = columns["offsets"].whole()
        self._source_offsets: IntArray = columns["source_offsets"].whole()
        self._config_type_offsets: IntArray | None = None
        if "config_type_offsets" in columns:
            self._config_type_offsets = columns["config_type_offsets"].whole()
        self._known: NDArray[np.uint8] = columns["known"].whole()
        self._count = len(self._known)
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
        manifest, columns = open_columns(folder)
        return cls(folder.resolve(), manifest, columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fingerprint)

    def _check_lengths(self) -> None:
        frames, atoms = self._count, len(self._columns["numbers"])
        per_frame, per_atom = ["cells", "pbc", "energies", "stresses"], ["positions", "forces"]
        per_frame += [name for name in ("weights", "charges", "spins") if name in self._columns]
        lengths = {name: len(self._columns[name]) for name in (*per_frame, *per_atom)}
        sound = frames > 0 and lengths == {**dict.fromkeys(per_frame, frames), **dict.fromkeys(per_atom, atoms)}
        parts = [(self._offsets, atoms), (self._source_offsets, len(self._columns["sources"]))]
        if self._config_type_offsets is not None:
            parts.append((self._config_type_offsets, len(self._columns["config_types"])))
        for offsets, last in parts:
            sound = sound and len(offsets) == frames + 1 and offsets[0] == 0 and offsets[-1] == last
            sound = sound and bool((np.diff(offsets) >= 0).all())
        if not sound or (np.diff(self._offsets) < 1).any():
            raise DataError(f"{self.path}: damaged frame cache: its arrays do not fit together; convert again")

    def verify(self) -> None:
        """Read everything and compare checksums; raises :class:`DataError` naming the first array that differs."""
        for name, entry in self.manifest["arrays"].items():
            if self._columns[name].sha256() != entry["sha256"]:
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
        columns, atoms = self._columns, (int(self._offsets[i]), int(self._offsets[i + 1]))
        known = int(self._known[i])
        return Frame(
            numbers=columns["numbers"].rows(*atoms),
            positions=columns["positions"].rows(*atoms),
            cell=columns["cells"].row(i) if known & CELL else None,
            pbc=columns["pbc"].row(i),
            energy=float(columns["energies"].row(i)) if known & ENERGY else None,
            forces=columns["forces"].rows(*atoms) if known & FORCES else None,
            stress=columns["stresses"].row(i) if known & STRESS else None,
            source=self.source(i),
            weight=float(columns["weights"].row(i)) if "weights" in columns else 1.0,
            config_type=self.config_type(i),
            charge=self._stated("charges", i),
            spin=self._stated("spins", i),
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
        return self._text("sources", self._source_offsets, self._position(index))

    def config_type(self, index: int) -> str | None:
        """The kind of structures that frame ``index`` belongs to, or None."""
        i = self._position(index)
        if self._config_type_offsets is None:
            return None
        return self._text("config_types", self._config_type_offsets, i) or None

    def electronic_states(self) -> FloatArray:
        """float64 [frames, 2]: charge and spin of every frame, NaN where it states none."""
        unknown = np.full(self._count, np.nan)
        given = [self._columns[name].whole() if name in self._columns else unknown for name in ("charges", "spins")]
        return np.stack(given, axis=1)

    def _stated(self, name: str, index: int) -> float | None:
        value = float(self._columns[name].row(index)) if name in self._columns else math.nan
        return None if math.isnan(value) else value

    def _text(self, name: str, offsets: IntArray, index: int) -> str:
        text = self._columns[name].rows(int(offsets[index]), int(offsets[index + 1]))
        return bytes(text).decode("utf-8", "surrogateescape")

    def atom_counts(self) -> IntArray:
        """int64 [frames]: the number of atoms of every frame."""
        return np.diff(self._offsets)

    @property
    def numbers(self) -> IntArray:
        """int64 [atoms]: the atomic numbers of all frames, one after the other."""
        return self._columns["numbers"].whole()

    def composition(self, index: int) -> tuple[tuple[int, int], ...]:
        """(atomic number, count) pairs of frame ``index`` in the order of atomic number."""
        i = self._position(index)
        numbers = self._columns["numbers"].rows(int(self._offsets[i]), int(self._offsets[i + 1]))
        elements, counts = np.unique(numbers, return_counts=True)
        return tuple(zip(elements.tolist(), counts.tolist(), strict=True))

    def labelled(self, label: str) -> NDArray[np.bool_]:
        """bool [frames]: which frames have ``label``: ``energy``, ``forces`` or ``stress``."""
        bit = {"energy": ENERGY, "forces": FORCES, "stress": STRESS}[label]
        return (self._known & bit) != 0

    def has(self, label: str) -> bool:
        """Whether every frame has ``label``."""
        return bool(self.labelled(label).all())


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
        _write_files(frames, partial, require, options, notes)
        _check_place(target, overwrite)
    return FrameCache.open(target)


def _check_place(target: Path, overwrite: bool) -> None:
    recover(target)
    if target.exists() and not (overwrite and (target / MANIFEST).is_file()):
        raise DataError(f"{target} exists already; choose another place, or overwrite=True (--overwrite) for a cache")


def _write_files(
    frames: Iterable[Frame],
    folder: Path,
    require: Sequence[str],
    options: ReadingOptions | None,
    notes: ReadingNotes | None,
) -> None:
    writer, species, count = CacheWriter(folder), set[int](), 0
    used: dict[str, bool] = dict.fromkeys(OPTIONAL, False)
    try:
        for name in ("offsets", "source_offsets", "config_type_offsets"):
            writer.append(name, np.zeros(1))
        for frame in frames:
            _append(writer, check_frame(frame, require))
            species.update(np.unique(frame.numbers).tolist())
            for name, needed in _needs(frame).items():
                used[name] = used[name] or needed
            count += 1
        if count == 0:
            raise DataError("there are no frames to write")
        for name, needed in used.items():
            if not needed:
                writer.drop(name)
        reading = {"options": options.changed() if options else {}, **(notes.document() if notes else {})}
        writer.finish({"species": sorted(species), "reading": reading if notes else None})
    finally:
        writer.close()


def _append(writer: CacheWriter, frame: Frame) -> None:
    unknown = np.full((3, 3), np.nan)
    known = 0
    for bit, value in ((CELL, frame.cell), (ENERGY, frame.energy), (FORCES, frame.forces), (STRESS, frame.stress)):
        known |= bit if value is not None else 0
    atoms = writer.append("numbers", frame.numbers)
    writer.append("positions", frame.positions)
    writer.append("forces", np.full((len(frame), 3), np.nan) if frame.forces is None else frame.forces)
    writer.append("offsets", np.array([atoms]))
    writer.append("cells", (unknown if frame.cell is None else frame.cell)[None])
    writer.append("pbc", frame.pbc[None])
    writer.append("energies", np.array([np.nan if frame.energy is None else frame.energy]))
    writer.append("stresses", (unknown if frame.stress is None else frame.stress)[None])
    writer.append("known", np.array([known]))
    writer.append("source_offsets", np.array([writer.append("sources", _bytes(frame.source))]))
    writer.append("weights", np.array([frame.weight]))
    writer.append("charges", np.array([math.nan if frame.charge is None else frame.charge]))
    writer.append("spins", np.array([math.nan if frame.spin is None else frame.spin]))
    writer.append("config_type_offsets", np.array([writer.append("config_types", _bytes(frame.config_type or ""))]))


def _needs(frame: Frame) -> dict[str, bool]:
    """Which arrays of :data:`OPTIONAL` a frame has something to say in."""
    named = bool(frame.config_type)
    return {
        "weights": frame.weight != 1.0,
        "config_types": named,
        "config_type_offsets": named,
        "charges": frame.charge is not None,
        "spins": frame.spin is not None,
    }


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _reopen(path: str, fingerprint: str) -> FrameCache:
    """The cache in another process; raises :class:`DataError` if another one was put in its place."""
    cache = FrameCache.open(path)
    if cache.fingerprint != fingerprint:
        raise DataError(f"{path}: replaced by a cache of other frames while it was in use")
    return cache
