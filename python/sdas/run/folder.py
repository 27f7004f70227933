"""The data of a run, and the files that describe it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from sdas.config import Config, DataConfig, load_config, render_config
from sdas.data import FrameCache, read_frames, write_cache
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes, lines_about_reading
from sdas.data.splits import Split, composition_split, given_split, random_split, sizes_from_fractions
from sdas.documents import write_document
from sdas.errors import ConfigError, TrainingError
from sdas.files import as_argument, sweep, write_text
from sdas.run.continuation import RUN, check_frames, check_settings, record_start
from sdas.run.lock import LOCK

CONFIG, SPLIT, METRICS, SUMMARY = "config.yaml", "split.json", "metrics.csv", "summary.json"
CHECKPOINTS, MODEL, FRAMES = "checkpoints", "model", "frames"
_BEFORE_FIRST_CHECKPOINT = frozenset({CONFIG, RUN, SPLIT, METRICS, FRAMES, "tensorboard"})


def start_run(config: Config) -> None:
    """Make the run directory with its config.yaml; raises :class:`TrainingError` if there is something else.

    What a run left that failed before its first checkpoint is replaced, but no file that may be somebody's.
    """
    folder = Path(config.run_dir)
    names = _swept(folder)
    if names and not (CONFIG in names and names <= _BEFORE_FIRST_CHECKPOINT):
        advice = f"resume it with --resume {as_argument(folder)}, or choose another run_dir"
        raise TrainingError(f"{folder} is not empty; {advice}")
    if CONFIG in names and (folder / CONFIG).stat().st_size > 0:  # of a killed run of earlier versions
        _check_is_ours(folder / CONFIG)
    if FRAMES in names and RUN not in names:
        raise TrainingError(f"{folder / FRAMES}: no run made it there, so it is left alone; choose another run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / FRAMES, ignore_errors=True)
    for name in (SPLIT, RUN):
        (folder / name).unlink(missing_ok=True)
    write_text(folder / CONFIG, render_config(config))


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


def find_run(config: Config) -> list[str]:
    """Find the run directory that is to be resumed, and what changed in its settings, in words; nothing is written.

    Raises :class:`TrainingError` if there is no run, or if it cannot go on with these settings.
    """
    folder = Path(config.run_dir)
    if CONFIG not in _swept(folder):
        raise TrainingError(f"{folder}: no run to resume there ({CONFIG} is missing)")
    if not _has_begun(folder):
        return []
    return check_settings(config, folder, from_cache=_is_cache(_paths(config.data)))


def record_run(config: Config, cache: FrameCache, split: Split) -> None:
    """Write the files that describe the run; raises :class:`TrainingError` if it was begun with other frames."""
    folder = Path(config.run_dir)
    if _has_begun(folder):
        check_frames(cache, split, folder)
    write_text(folder / CONFIG, render_config(config))
    split.save(folder / SPLIT)
    record_start(config, cache, split, folder)


def _swept(folder: Path) -> set[str]:
    """What lies in a run directory, after what killed processes left was removed."""
    sweep(folder)
    sweep(folder / CHECKPOINTS)
    return set(os.listdir(folder)) - {LOCK} if folder.is_dir() else set()


def _check_is_ours(path: Path) -> None:
    try:
        load_config(path)
    except ConfigError as error:
        raise TrainingError(f"{error}: it is of no run and left alone; choose another run_dir") from None


def _has_begun(folder: Path) -> bool:
    """Whether there is a state to go on from, or a record that says how it came about."""
    return (folder / RUN).exists() or (folder / CHECKPOINTS).is_dir()


def convert_raw_files(config: DataConfig, folder: Path) -> None:
    """Convert raw files to a cache in the run directory, unless the data are a cache or it is there already."""
    paths = _paths(config)
    if _is_cache(paths) or (folder / FRAMES).exists():
        return
    options, notes = config.reading(), ReadingNotes()
    streams = [read_frames(path, **options.model_dump(), notes=notes) for path in paths]
    frames = chain.from_iterable(streams)
    write_cache(frames, folder / FRAMES, require=("energy", "forces"), options=options, notes=notes)


def say_how_frames_were_read(cache: FrameCache) -> None:
    """Lines on standard error: the names of the labels, and the frames that were left out."""
    for line in lines_about_reading(cache.reading):
        print(line, file=sys.stderr)


def say_what_changed(changes: list[str]) -> None:
    """A line on standard error for every setting that a resumed run goes on with in place of another."""
    for change in changes:
        print(f"changed from here on: {change}", file=sys.stderr)


def open_cache(config: DataConfig, folder: Path) -> FrameCache:
    """The frames of the run in ``folder``: the cache that it names, or the one made of its raw files."""
    paths = _paths(config)
    return FrameCache.open(paths[0] if _is_cache(paths) else folder / FRAMES)


def open_data(config: DataConfig, folder: Path) -> tuple[FrameCache, Split]:
    """The frames of a run, and its split: the one in the run directory, or else as configured."""
    cache = open_cache(config, folder)
    if (folder / SPLIT).is_file():
        return cache, Split.load(folder / SPLIT, cache)
    split = config.split
    if split.indices is not None:
        is_ours = split.indices.endswith(".json") and '"sdas split"' in Path(split.indices).read_text()[:200]
        return cache, Split.load(split.indices, cache) if is_ours else given_split(cache, split.indices)
    whole = max(split.sizes) > 1
    sizes = [int(size) for size in split.sizes] if whole else sizes_from_fractions(len(cache), split.sizes)
    choose = random_split if split.method == "random" else composition_split
    return cache, choose(cache, sizes, split.seed)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json."""
    write_document(folder / SUMMARY, summary)


def machine(device: torch.device) -> dict[str, Any]:
    """Where a run took place, and the most memory this process held so far, MiB."""
    unit = 1024 if sys.platform != "darwin" else 1024**2
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_peak_memory_mib"] = torch.cuda.max_memory_allocated(device) // 1024**2
    return facts


def _paths(config: DataConfig) -> list[str]:
    return [config.path] if isinstance(config.path, str) else list(config.path)


def _is_cache(paths: list[str]) -> bool:
    return len(paths) == 1 and os.path.isdir(paths[0]) and detect_format(Path(paths[0])) == "cache"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
