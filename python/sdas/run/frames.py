"""The frames of a run: converted into its folder, or a cache elsewhere; and how they are divided."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from sdas.config import DataConfig
from sdas.config.reading import ReadingOptions, flag_of
from sdas.data import DataError, Frame, FrameCache, read_frames, write_cache
from sdas.data.duplicates import repeated
from sdas.data.frame import LABELS, check_labelled
from sdas.data.isolated_atoms import isolated_atoms, structures
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.splits import PARTS, Split, composition_split, random_split, saved_or_given_split, sizes_from_fractions
from sdas.run.folder import FRAMES, SPLIT


def check_files(config: DataConfig) -> None:
    """Raise :class:`DataError` for the first file that is not there, or of no known format, before a run begins."""
    for path in chain.from_iterable(config.files().values()):
        if not os.path.exists(path):
            raise DataError(f"{path} does not exist")
        if config.format is None:
            try:
                detect_format(Path(path))
            except DataError as error:
                raise DataError(f"{error}; the name of a configuration ends in .yaml or .yml") from None


@contextmanager
def converted_frames(config: DataConfig, folder: Path) -> Iterator[None]:
    """Convert raw files if they are to be; what was converted is removed if the block that records the run fails."""
    there = (folder / FRAMES).exists()
    try:
        convert_raw_files(config, folder)
        yield
    except BaseException:
        if not there:
            shutil.rmtree(folder / FRAMES, ignore_errors=True)
        raise


def convert_raw_files(config: DataConfig, folder: Path) -> None:
    """Convert raw files to a cache in the run directory, unless the data are a cache or it is there already."""
    if is_cache(config) or (folder / FRAMES).exists():
        return
    options, notes = config.reading(), ReadingNotes()
    told = {**options.model_dump(), "require": required(options), "notes": notes}
    streams = {part: [read_frames(path, **told) for path in paths] for part, paths in config.files().items()}
    for path in filter(_is_cache, chain.from_iterable(config.files().values())):
        for label, names in FrameCache.open(path).reading.get("labels", {}).items():
            for name, count in names.items():
                notes.found(label, name, count)
    frames = _with_labels(_counted(streams, notes), options, notes)
    write_cache(frames, folder / FRAMES, options=options, notes=notes)


def _with_labels(frames: Iterator[Frame], options: ReadingOptions, notes: ReadingNotes) -> Iterator[Frame]:
    """``frames``, of which each has a label, and some have those that were asked for by name.

    Within a file a label has one name; a remark says where the names in two files differ.
    """
    yield from (check_labelled(frame, options) for frame in frames)
    for label in LABELS:
        key, names = getattr(options, f"{label}_key"), list(notes.labels.get(label, {}))
        if len(names) > 1:
            notes.remarks[f"the {label} is called {' and '.join(names)} in different files; is it the same?"] += 1
        if key is not None and key not in names:
            raise DataError(f"no frame has {key}, which {flag_of(f'{label}_key')} asks for")


def required(options: ReadingOptions) -> tuple[str, ...]:
    """Labels that every frame must have: energy and forces where frames without them are left out, else none.

    Where they are not left out, any label is enough.
    """
    return ("energy", "forces") if options.skip == "incomplete" else ()


def _counted(streams: Mapping[str, Sequence[Iterator[Frame]]], notes: ReadingNotes) -> Iterator[Frame]:
    """The frames of all parts, one after the other; how many each part has goes into the notes."""
    for part, files in streams.items():
        for frame in chain.from_iterable(files):
            notes.parts[part] += 1
            yield frame


def say_which_frames(cache: FrameCache, split: Split) -> None:
    """Lines on standard error: how the frames were read, which were left out, and how they are divided."""
    sizes = ", ".join(f"{n} {part}" for n, part in zip(split.sizes(), PARTS, strict=True))
    count = len(isolated_atoms(cache))
    sizes += f", {count} isolated atom{'s' if count > 1 else ''} in none of them" if count else ""
    for line in (*lines_about_reading(cache.reading), f"frames: {sizes} ({split.method})"):
        print(line, file=sys.stderr)


def warn_of_repeated(cache: FrameCache, split: Split) -> None:
    """Warn of validation and test frames that train as well."""
    seen = repeated(cache, split.train, np.concatenate([split.validation, split.test]))
    for part in PARTS[1:]:
        indices = getattr(split, part)
        trained = np.intersect1d(indices, seen)
        if len(trained):
            warnings.warn(
                f"{len(trained)} of {len(indices)} {part} frames are training frames too, atom by atom, first "
                f"{cache.source(trained[0])}: errors on them say little of other structures",
                stacklevel=2,
            )


def open_cache(config: DataConfig, folder: Path) -> FrameCache:
    """The frames of the run in ``folder``: the cache that it names, or the one made of its raw files."""
    return FrameCache.open(config.files()["train"][0] if is_cache(config) else folder / FRAMES)


def open_data(config: DataConfig, folder: Path) -> tuple[FrameCache, Split]:
    """The frames of a run, and its split: the one in the run directory, or else as configured."""
    cache = open_cache(config, folder)
    if (folder / SPLIT).exists():
        return cache, Split.load(folder / SPLIT, cache)
    if config.split.indices is not None:
        return cache, saved_or_given_split(cache, config.split.indices)
    return cache, _split(config, cache)


def _split(config: DataConfig, cache: FrameCache) -> Split:
    """Parts that have files of their own, and those that are split off from the frames to train on.

    Isolated atoms are in none.
    """
    own = [part for part, files in config.files().items() if files and part != "train"]
    sizes = dict(zip(PARTS, config.split.sizes, strict=True))
    fractions = max(sizes.values()) <= 1
    if fractions:
        sizes["train"] += sum(sizes[part] for part in own)
    asked = [0 if part in own else sizes[part] for part in PARTS]
    counts = cache.reading["parts"] if own else {"train": len(cache)}
    inside = structures(cache)
    divided = inside[inside < counts["train"]]
    if not len(divided):
        raise DataError(f"{', '.join(config.files()['train'])}: isolated atoms alone, of which nothing is learned")
    choose = random_split if config.split.method == "random" else composition_split
    numbers = sizes_from_fractions(len(divided), asked) if fractions else [int(size) for size in asked]
    made, first = choose(cache, numbers, config.split.seed, divided), counts["train"]
    parts, method = {part: getattr(made, part) for part in PARTS}, made.method
    for part in own:
        parts[part] = inside[(inside >= first) & (inside < first + counts[part])]
        first += counts[part]
        method += f"; {part} from files of its own"
    return Split(**parts, count=len(cache), fingerprint=cache.fingerprint, method=method)


def is_cache(config: DataConfig) -> bool:
    """Whether the frames are those of one cache, rather than of files to make one of."""
    paths = list(chain.from_iterable(config.files().values()))
    return len(paths) == 1 and _is_cache(paths[0])


def _is_cache(path: str) -> bool:
    return os.path.isdir(path) and detect_format(Path(path)) == "cache"
