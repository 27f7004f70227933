"""One call for every file format: :func:`read_frames`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config.reading import ReadingOptions, flag_of, make_reading_options
from sdas.data.cache import FrameCache
from sdas.data.consistency import check_energy_and_forces
from sdas.data.errors import DataError
from sdas.data.frame import LABELS, Frame, check_frame
from sdas.data.label_sizes import check_force_unit, check_stress_unit
from sdas.data.plausibility import check_length_unit
from sdas.data.readers import npz
from sdas.data.readers.ase_files import read_ase, read_ase_database
from sdas.data.readers.cp2k import read_cp2k
from sdas.data.readers.deepmd import read_deepmd
from sdas.data.readers.fitsnap import read_fitsnap
from sdas.data.readers.hdf5 import read_hdf5
from sdas.data.readers.mlearn import read_mlearn
from sdas.data.readers.mtp import read_mtp
from sdas.data.readers.oc20_lmdb import read_oc20_lmdb
from sdas.data.readers.options import ReadOptions
from sdas.data.readers.pacemaker import read_pacemaker
from sdas.data.readers.qm9 import read_qm9
from sdas.data.readers.recognition import KNOWN, detect_format
from sdas.data.reading_notes import ReadingNotes, lines_about_skipped
from sdas.data.units import Units
from sdas.files import recover

FRAMES_HELD = 64
TAKE_A_CELL = ("cp2k",)
Reader = Callable[[Path, ReadOptions], Iterator[Frame]]


def _read_cache(path: Path, options: ReadOptions) -> Iterator[Frame]:
    return iter(FrameCache.open(path))


READERS: dict[str, Reader] = {
    "rmd17": npz.read_rmd17,
    "sgdml": npz.read_sgdml,
    "ase": read_ase,
    "ase-db": read_ase_database,
    "deepmd": read_deepmd,
    "oc20-lmdb": read_oc20_lmdb,
    "mtp": read_mtp,
    "fitsnap": read_fitsnap,
    "mlearn": read_mlearn,
    "cp2k": read_cp2k,
    "qm9": read_qm9,
    "pacemaker": read_pacemaker,
    "hdf5": read_hdf5,
    "cache": _read_cache,
}


def read_frames(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    require: Sequence[str] = ("energy", "forces"),
    notes: ReadingNotes | None = None,
    **options: Any,
) -> Iterator[Frame]:
    """Stream the frames of ``path`` in Å, eV, eV/Å and eV/Å³, each checked.

    ``format`` and ``options`` are those of :class:`sdas.config.reading.ReadingOptions`. ``format`` is a key of
    :data:`READERS`, or ``ase:NAME`` for a format of ASE. ``units`` is read by :meth:`sdas.data.units.Units.parse` and
    says what the file stores, where it does not say so itself. ``energy_key``, ``forces_key`` and ``stress_key`` name
    the labels in the file; without them the usual names are tried and two that disagree are refused. ``weight_key``
    names the weight of a frame, ``config_weight`` without it. ``type_map`` gives the elements of types, ``cell`` the
    cell that files of CP2K lack. ``check_units`` (True) holds back the first 64 frames. It refuses a
    file if their distances look like bohr or nm, or if their forces do not fit the energies along the steps. Forces
    that were set to zero on fixed atoms before they were stored are refused unless ``allow_zeroed_forces``.

    ``require`` lists the labels that every frame must have. The forces on a single atom in open space are zero, so it
    needs none. With ``skip="incomplete"`` frames that lack a required label are left out.

    ``notes`` takes up the names of the labels and the frames that were left out; without it there is a warning about
    frames that were left out after the last frame.

    Raises :class:`DataError` naming the file and the frame, for a missing or empty file at once, for the rest as the
    frames come; :class:`sdas.errors.ConfigError` for options that are not valid.
    """
    asked = make_reading_options({"format": format, **options})
    source = Path(path)
    recover(source)
    if not source.exists():
        raise DataError(f"{source} does not exist")
    name, _, ase_format = (format or detect_format(source)).partition(":")
    if name not in READERS or (ase_format and name != "ase"):
        raise DataError(f"unknown format {format!r}; known formats: {KNOWN}")
    if source.is_file() and source.stat().st_size == 0:
        raise DataError(f"{source} is empty")
    if notes is None:
        return _warning_of_skipped(_read(name, source, asked, ase_format, tuple(require), kept := ReadingNotes()), kept)
    return _read(name, source, asked, ase_format, tuple(require), notes)


def _read(
    name: str, source: Path, asked: ReadingOptions, ase_format: str, require: tuple[str, ...], notes: ReadingNotes
) -> Iterator[Frame]:
    parsed = ReadOptions(
        units=None if asked.units is None else Units.parse(asked.units),
        energy_key=asked.energy_key,
        forces_key=asked.forces_key,
        stress_key=asked.stress_key,
        weight_key=asked.weight_key,
        type_map=None if asked.type_map is None else tuple(asked.type_map),
        cell=tuple(asked.cell) if isinstance(asked.cell, list) else asked.cell,
        ase_format=ase_format or None,
        skip=asked.skip,
        allow_zeroed_forces=asked.allow_zeroed_forces,
        notes=notes,
    )
    if asked.cell is not None and name not in TAKE_A_CELL:
        raise DataError(f"{source}: {flag_of('cell')} is for files of CP2K; the format {name} says its cells itself")
    notes.formats[name] += 1
    frames: Iterator[Frame] = (_completed(frame) for frame in READERS[name](source, parsed))
    if asked.skip == "incomplete":
        frames = _complete_ones(frames, require, notes)
    if name == "cache":  # which says its units, and has no names of labels
        return _checked(frames, source, require, False, notes)
    return _noting_keys(_checked(frames, source, require, asked.check_units, notes), source, asked, notes)


def _noting_keys(frames: Iterator[Frame], source: Path, asked: ReadingOptions, notes: ReadingNotes) -> Iterator[Frame]:
    """``frames``; after the last, a remark on every key that was asked for and that no frame has."""
    yield from frames
    for label in (*LABELS, "weight"):
        key = getattr(asked, f"{label}_key")
        if key is not None and key not in notes.labels.get(label, {}):
            notes.remarks[f"no frame of {source} has {key}, which {flag_of(f'{label}_key')} asks for"] += 1


def _completed(frame: Frame) -> Frame:
    """``frame``, with forces of zero if it is a single atom in open space that has an energy and no forces."""
    if len(frame) == 1 and not frame.pbc.any() and frame.energy is not None and frame.forces is None:
        return replace(frame, forces=np.zeros((1, 3)))
    return frame


def _complete_ones(frames: Iterator[Frame], require: tuple[str, ...], notes: ReadingNotes) -> Iterator[Frame]:
    for frame in frames:
        missing = [label for label in require if getattr(frame, label) is None]
        if missing:
            notes.skip(frame.source, f"no {' and no '.join(missing)}")
        else:
            yield frame


def _checked(
    frames: Iterator[Frame], source: Path, require: tuple[str, ...], check_units: bool, notes: ReadingNotes
) -> Iterator[Frame]:
    sound = (check_frame(frame, require) for frame in frames)
    head = list(islice(sound, FRAMES_HELD if check_units else 1))
    if not head:
        left_out = "".join(f"; {line}" for line in lines_about_skipped(notes.document()))
        raise DataError(f"{source} holds no frames{left_out}")
    if check_units:
        check_length_unit(head, str(source))
        check_energy_and_forces(head, str(source))
        check_force_unit(head, str(source))
        check_stress_unit(head, str(source))
    yield from chain(head, sound)


def _warning_of_skipped(frames: Iterator[Frame], notes: ReadingNotes) -> Iterator[Frame]:
    yield from frames
    for line in lines_about_skipped(notes.document()):
        warnings.warn(line, stacklevel=2)
