"""Splits of a frame cache into training, validation and test frames: random, given, or by composition."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdas.data.cache import FrameCache
from sdas.data.elements import with_all_elements
from sdas.data.errors import DataError
from sdas.data.frame import IntArray
from sdas.data.isolated_atoms import isolated_atoms, structures
from sdas.data.readers.npz_stream import NpzStream
from sdas.documents import read_json
from sdas.files import write_text

PARTS = ("train", "validation", "test")
FORMAT = "sdas split"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Frame indices of the three parts, int64, sorted, without repetition or overlap.

    ``fingerprint`` is that of the cache that they refer to, ``count`` its number of frames, ``method`` says how the
    split was made.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    count: int
    fingerprint: str
    method: str

    def __post_init__(self) -> None:
        taken: set[int] = set()
        for name in PARTS:
            indices = getattr(self, name)
            if indices.ndim != 1 or indices.dtype.kind not in "iu":
                raise DataError(
                    f"{name} indices must be integers of shape [k], got {indices.dtype} {list(indices.shape)}"
                )
            outside = indices[(indices < 0) | (indices >= self.count)]
            if outside.size:
                raise DataError(f"{name} index {outside[0]} is outside 0..{self.count - 1}")
            values, repeats = np.unique(indices, return_counts=True)
            if (repeats > 1).any():
                raise DataError(f"{name} index {values[np.argmax(repeats > 1)]} appears more than once")
            shared = taken.intersection(values.tolist())
            if shared:
                raise DataError(f"{name} index {min(shared)} is in an earlier part too")
            taken.update(values.tolist())
            object.__setattr__(self, name, values.astype(np.int64))

    def sizes(self) -> tuple[int, int, int]:
        """Numbers of training, validation and test frames."""
        return len(self.train), len(self.validation), len(self.test)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the split as JSON, replacing ``path`` at once or not at all."""
        content = {"format": FORMAT, "version": VERSION, "method": self.method}
        content |= {"count": self.count, "fingerprint": self.fingerprint}
        content |= {name: getattr(self, name).tolist() for name in PARTS}
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, json.dumps(content))

    @classmethod
    def load(cls, path: str | os.PathLike[str], cache: FrameCache) -> Split:
        """Read a saved split; raises :class:`DataError` if it belongs to other data than ``cache``."""
        content = read_json(path, DataError)
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise DataError(f"{path}: not a split of this version; make one with 'sdas data split'")
        if content.get("fingerprint") != cache.fingerprint:
            raise DataError(f"{path}: made for other data than {cache.path}: their fingerprints differ")
        try:
            parts = {name: _indices(content[name]) for name in PARTS}
            return cls(**parts, count=len(cache), fingerprint=cache.fingerprint, method=str(content["method"]))
        except KeyError as error:
            raise DataError(f"{path}: damaged: it has no {error}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise :class:`DataError` if saving a split there would replace a file that is no split."""
    if not os.path.lexists(path):
        return
    try:
        with open(path, encoding="utf-8") as file:
            is_split = f'"{FORMAT}"' in file.read(200)
    except (OSError, UnicodeDecodeError):
        is_split = False
    if not is_split:
        raise DataError(f"{path} is there and is no split: choose another place with --to")


def sizes_from_fractions(count: int, fractions: Sequence[float]) -> tuple[int, int, int]:
    """Whole numbers nearest to ``count`` times the three fractions; what the rounding leaves goes to training.

    Fractions that sum to less than 1 leave frames unused. Raises :class:`DataError` for a negative fraction or a sum
    above 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or sum(fractions) > 1 + 1e-9:
        raise DataError(f"fractions must be three numbers >= 0 with a sum of at most 1, got {list(fractions)}")
    _, validation, test = (round(count * fraction) for fraction in fractions)
    total = round(count * sum(fractions))
    return max(0, total - validation - test), validation, test


def random_split(cache: FrameCache, sizes: Sequence[int], seed: int, among: IntArray | None = None) -> Split:
    """``sizes`` = (train, validation, test) frames drawn at random, without replacement; the rest is unused.

    Where an element would be in no training frame, a frame that holds it changes places with one that can be spared.
    ``among``: indices of the frames that are divided, all of the cache but isolated atoms unless given.
    """
    sizes, chosen = _checked_sizes(sizes), _checked_choice(cache, sizes, among)
    order = chosen[np.random.default_rng(seed).permutation(len(chosen))]
    train, others = with_all_elements(cache, *np.split(order[: sum(sizes)], [sizes[0]]))
    validation, test = np.split(others, [sizes[1]])
    method = f"random, seed {seed}, sizes {list(sizes)}"
    return Split(train, validation, test, len(cache), cache.fingerprint, method)


def given_split(cache: FrameCache, path: str | os.PathLike[str]) -> Split:
    """The split written in a file: ``.npz`` or ``.json`` with the keys train, validation (or val, valid) and test,
    or ``.csv`` with the header ``index,part``. Isolated atoms are taken out of it.

    Raises :class:`DataError` for indices out of range, repeated or shared.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    readers = {".npz": _read_npz, ".json": lambda path: read_json(path, DataError), ".csv": _read_csv}
    if file.suffix not in readers:
        raise DataError(f"{file}: indices are read from {', '.join(readers)}, not {file.suffix or 'a bare name'}")
    content = readers[file.suffix](file)
    try:
        parts = _named_parts(content)
        split = Split(**parts, count=len(cache), fingerprint=cache.fingerprint, method=f"indices of {file.name}")
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    isolated = isolated_atoms(cache)
    train, validation, test = (np.setdiff1d(getattr(split, part), isolated) for part in PARTS)
    return replace(split, train=train, validation=validation, test=test)


def saved_or_given_split(cache: FrameCache, path: str | os.PathLike[str]) -> Split:
    """The split in a file of :meth:`Split.save`, or else of :func:`given_split`."""
    file = Path(path)
    if file.suffix == ".json" and read_json(file, DataError).get("format") == FORMAT:
        return Split.load(file, cache)
    return given_split(cache, file)


def composition_split(cache: FrameCache, sizes: Sequence[int], seed: int, among: IntArray | None = None) -> Split:
    """Parts of nearly ``sizes`` = (train, validation, test) frames such that no two share a composition.

    Whole compositions are dealt out in random order, each to the part whose size it brings nearest to what was asked
    for; of several such deals the one with the best sizes is kept. Every part with a size above zero gets at least
    one composition; frames beyond the sizes stay unused. ``among`` as of :func:`random_split`. Raises
    :class:`DataError` if there are fewer compositions than such parts.
    """
    sizes, chosen = _checked_sizes(sizes), _checked_choice(cache, sizes, among)
    groups = _frames_by_composition(cache, chosen)
    wanted = [part for part in range(3) if sizes[part] > 0]
    if len(groups) < len(wanted):
        raise DataError(
            f"the frames have {len(groups)} composition(s), too few for {len(wanted)} parts that share none; "
            "use a random split"
        )
    rng = np.random.default_rng(seed)
    deals = max(4, min(64, 200_000 // len(groups)))
    best = min((_deal(groups, sizes, len(chosen), rng) for _ in range(deals)), key=lambda deal: deal[0])[1]
    parts = [[group for group, part in zip(groups, best, strict=True) if part == p] for p in range(3)]
    train, validation, test = (np.concatenate(part) if part else np.empty(0, np.int64) for part in parts)
    method = f"by composition, seed {seed}, sizes {list(sizes)}"
    return Split(train, validation, test, len(cache), cache.fingerprint, method)


def _deal(
    groups: list[IntArray], sizes: tuple[int, int, int], count: int, rng: np.random.Generator
) -> tuple[int, list[int]]:
    """The part of each group (3 = unused) in one random deal, and before it the sum of |size − size asked for|."""
    asked = [*sizes, count - sum(sizes)]
    lacking = list(asked)
    assigned = [3] * len(groups)
    empty = {part for part in range(3) if asked[part] > 0}
    for dealt, index in enumerate(rng.permutation(len(groups)).tolist()):
        size = len(groups[index])
        parts = empty if len(empty) >= len(groups) - dealt else [part for part in range(4) if asked[part] > 0]
        part = min(parts, key=lambda p: (abs(lacking[p] - size) - abs(lacking[p]), -lacking[p] / asked[p]))
        assigned[index] = part
        lacking[part] -= size
        empty.discard(part)
    return sum(abs(rest) for rest in lacking[:3]), assigned


def _frames_by_composition(cache: FrameCache, chosen: IntArray) -> list[IntArray]:
    found: dict[Hashable, list[int]] = {}
    for index in chosen.tolist():
        found.setdefault(cache.composition(index), []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in found.values()]


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, int, int]:
    if len(sizes) != 3 or min(sizes) < 0 or sizes[0] == 0:
        raise DataError(f"sizes must be (train > 0, validation >= 0, test >= 0), got {list(sizes)}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _checked_choice(cache: FrameCache, sizes: tuple[int, int, int], among: IntArray | None) -> IntArray:
    chosen = structures(cache) if among is None else among
    if sum(sizes) > len(chosen):
        raise DataError(f"{' + '.join(map(str, sizes))} frames are asked for, there are {len(chosen)} to divide")
    return chosen


def _named_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    names = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
    parts: dict[str, Any] = {part: np.empty(0, np.int64) for part in PARTS}
    if not isinstance(content, Mapping) or "train" not in content:
        raise DataError("no 'train' indices in it")
    for key, value in content.items():
        if key in names:
            parts[names[key]] = _indices(value)
    return parts


def _indices(value: Any) -> Any:
    """Indices as an array, int64 if there are none; raises :class:`DataError` for what makes no array."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the indices are no list of integers: {error}") from None
    return array if array.size else np.empty(0, np.int64)


def _read_npz(path: Path) -> dict[str, Any]:
    with NpzStream(path) as content:
        return {name: content.array(name) for name in content.names}


def _read_csv(path: Path) -> dict[str, Any]:
    parts: dict[str, list[int]] = {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as .csv: {error}") from None
    for line, row in enumerate(rows, start=2):
        try:
            parts.setdefault(row["part"].strip(), []).append(int(row["index"]))
        except (KeyError, ValueError, AttributeError, TypeError):
            raise DataError(f"{path}: line {line} is not index,part under the header 'index,part'") from None
    return parts
