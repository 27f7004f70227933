"""The frames of a run: converted into its folder, or a cache elsewhere; and how they are divided."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from sdas.config import DataConfig
from sdas.data import FrameCache, read_frames, write_cache
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.splits import Split, composition_split, random_split, saved_or_given_split, sizes_from_fractions
from sdas.run.folder import FRAMES, SPLIT


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
    streams = [read_frames(path, **options.model_dump(), notes=notes) for path in _paths(config)]
    frames = chain.from_iterable(streams)
    write_cache(frames, folder / FRAMES, require=("energy", "forces"), options=options, notes=notes)


def say_how_frames_were_read(cache: FrameCache) -> None:
    """Lines on standard error: the names of the labels, and the frames that were left out."""
    for line in lines_about_reading(cache.reading):
        print(line, file=sys.stderr)


def open_cache(config: DataConfig, folder: Path) -> FrameCache:
    """The frames of the run in ``folder``: the cache that it names, or the one made of its raw files."""
    return FrameCache.open(_paths(config)[0] if is_cache(config) else folder / FRAMES)


def open_data(config: DataConfig, folder: Path) -> tuple[FrameCache, Split]:
    """The frames of a run, and its split: the one in the run directory, or else as configured."""
    cache = open_cache(config, folder)
    if (folder / SPLIT).exists():
        return cache, Split.load(folder / SPLIT, cache)
    split = config.split
    if split.indices is not None:
        return cache, saved_or_given_split(cache, split.indices)
    whole = max(split.sizes) > 1
    sizes = [int(size) for size in split.sizes] if whole else sizes_from_fractions(len(cache), split.sizes)
    choose = random_split if split.method == "random" else composition_split
    return cache, choose(cache, sizes, split.seed)


def is_cache(config: DataConfig) -> bool:
    """Whether the configuration names a frame cache, rather than files to make one of."""
    paths = _paths(config)
    return len(paths) == 1 and os.path.isdir(paths[0]) and detect_format(Path(paths[0])) == "cache"


def _paths(config: DataConfig) -> list[str]:
    return [config.path] if isinstance(config.path, str) else list(config.path)
