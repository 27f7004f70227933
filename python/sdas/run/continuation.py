"""What a run was started with, and what may change when it is resumed.

``run.json`` in the run folder holds the settings of the last start, and fingerprints of the frames and of the split.
A resume compares: what makes the run what it is must be the same, any other change is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdas.config import Config, parse_config
from sdas.config.section import Section
from sdas.data import FrameCache, Split
from sdas.data.splits import PARTS
from sdas.documents import read_document, write_document
from sdas.errors import ConfigError, TrainingError
from sdas.run.folder import RUN

FIXED = (
    *("data", "model", "scaling", "active"),
    *("train.batch_size", "train.batch_atoms", "train.batch_edges"),
    *("train.dtype", "train.energy_reference", "train.optimizer", "train.seed"),
)
"""Keys, and sections of keys, that make a run what it is."""
FREE = ("data.graph_cache_gib", "data.path", "active.rounds", "active.processes", "active.resources")
"""Keys, and a section, among them that may change. A path may where a cache lies at it: its content is compared."""


def check_settings(config: Config, folder: Path, from_cache: bool) -> list[str]:
    """Changes since the last start of the run in ``folder`` that are allowed, each in words.

    ``from_cache``: whether data.path is a cache. Raises :class:`TrainingError` naming the changes that are not allowed.
    """
    path = folder / RUN
    stored = read_document(path, TrainingError, "what the run was started with is not known; start another")
    try:
        before, now = _flat(parse_config(stored["settings"], str(path))), _flat(config)
    except ConfigError as error:
        raise TrainingError(
            f"{error}; the run was begun by an earlier version: finish it with that one, or start another"
        ) from None
    changed = {key: f"{key} ({_shown(before.get(key))} → {_shown(value)})" for key, value in now.items()}
    changed = {key: text for key, text in changed.items() if before.get(key) != now[key] and key != "run_dir"}
    may_change = [key for key in now if _is_free(key, from_cache)]
    refused = [text for key, text in changed.items() if key not in may_change]
    if refused:
        allowed = ", ".join(key for key in may_change if not key.startswith(("run_dir", "cross_validation")))
        raise TrainingError(
            f"{folder}: a resumed run cannot change {', '.join(refused)}: set back what was edited, or start another "
            f"run; it can change {allowed}"
        )
    return list(changed.values())


def check_frames(cache: FrameCache, split: Split, folder: Path) -> None:
    """Raise :class:`TrainingError` unless the run in ``folder`` was started with these frames and this split."""
    stored = read_document(folder / RUN, TrainingError)
    if stored["data"] != cache.fingerprint:
        raise TrainingError(f"{cache.path}: not the frames with which the run in {folder} was started; start another")
    if stored["split"] != _split_fingerprint(split):
        raise TrainingError(f"{folder}: a resumed run cannot change its split, and split.json was; start another run")


def record_start(config: Config, cache: FrameCache, split: Split, folder: Path) -> None:
    """Write run.json."""
    settings = config.model_dump(mode="json")
    marks = {"data": cache.fingerprint, "split": _split_fingerprint(split)}
    write_document(folder / RUN, {"settings": settings, **marks})


def _is_free(key: str, from_cache: bool) -> bool:
    if _is_among(key, FREE):
        return from_cache or key != "data.path"
    return not _is_among(key, FIXED)


def _is_among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key, or a section that it is in, is named."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _split_fingerprint(split: Split) -> str:
    return hashlib.sha256(json.dumps([getattr(split, part).tolist() for part in PARTS]).encode()).hexdigest()


def _flat(section: Section) -> dict[str, Any]:
    return dict(_items(section, ""))


def _items(section: Section, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _items(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
