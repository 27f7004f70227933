"""The JSON files that the drivers write: strict JSON, sealed with a checksum of their own content.

    write_document("summary.json", {"steps": 12})
    read_document("summary.json")["steps"]

A document carries the SHA-256 of its canonical form (keys sorted, no blanks, the checksum itself left out) under
``checksum``. A digit changed by hand or by a failing disk is noticed, so what reads a document can trust its content.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from sdas.errors import SdasError
from sdas.files import write_text

CHECKSUM = "checksum"

StrPath = str | os.PathLike[str]


def write_document(path: StrPath, content: Mapping[str, Any]) -> None:
    """Replace the document ``path`` at once or not at all; raises :class:`SdasError` for NaN and infinity."""
    write_text(path, render_document(content, path))


def render_document(content: Mapping[str, Any], path: StrPath) -> str:
    """The sealed document as text; ``path`` is named in errors."""
    for place, value in _numbers(content):
        if not math.isfinite(value):
            raise SdasError(f"{path}: {place} is {value}, which JSON cannot hold")
    return json.dumps({**content, CHECKSUM: _checksum(content)}, indent=2, allow_nan=False) + "\n"


def read_document(path: StrPath, kind: type[SdasError] = SdasError, advice: str = "") -> dict[str, Any]:
    """The content of a sealed document, its checksum left out.

    Raises ``kind`` with the file, what is wrong with it and the ``advice``: missing, unreadable, not JSON, edited.
    """
    content = read_json(path, kind, advice)
    check_seal(content, path, kind, advice)
    return {key: value for key, value in content.items() if key != CHECKSUM}


def read_older_document(path: StrPath, kind: type[SdasError] = SdasError, advice: str = "") -> dict[str, Any]:
    """The same of a document that earlier versions wrote without a checksum: it is compared where there is one."""
    content = read_json(path, kind, advice)
    if CHECKSUM in content:
        check_seal(content, path, kind, advice)
    return {key: value for key, value in content.items() if key != CHECKSUM}


def read_json(path: StrPath, kind: type[SdasError] = SdasError, advice: str = "") -> dict[str, Any]:
    """A JSON object that need not be sealed; NaN and infinity are refused. Raises ``kind`` as above."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise kind(_told(f"{path} does not exist", advice)) from None
    except OSError as error:
        raise kind(f"{path}: cannot be read: {error.strerror}") from None
    return parse_json(content, path, kind, advice)


def parse_json(content: bytes, path: StrPath, kind: type[SdasError] = SdasError, advice: str = "") -> dict[str, Any]:
    """The same of the bytes that were read from ``path``."""
    try:
        found = json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise kind(_told(f"{path}: cannot be read: damaged JSON: {error}", advice)) from None
    if not isinstance(found, dict):
        raise kind(_told(f"{path}: cannot be read: holds a {type(found).__name__}, not an object", advice))
    return found


def check_seal(content: Mapping[str, Any], path: StrPath, kind: type[SdasError] = SdasError, advice: str = "") -> None:
    """Raise ``kind`` unless ``content``, read from ``path``, has its own checksum."""
    if CHECKSUM not in content:
        raise kind(_told(f"{path}: has no checksum: written by an earlier version, or edited", advice))
    if content[CHECKSUM] != _checksum(content):
        raise kind(_told(f"{path}: damaged or edited: its checksum is not that of its content", advice))


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != CHECKSUM}))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every float in ``value`` with the keys that lead to it."""
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{place}[{index}]")


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _told(fault: str, advice: str) -> str:
    return f"{fault}: {advice}" if advice else fault
