"""The elements of a list in a JSON file, one after the other: a file of any length in the memory of one element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sdas.data.errors import DataError
from sdas.data.readers.packed import open_text

PIECE = 1 << 16
LONGEST_TOKEN = 64
"""Characters from the end within which an error may only mean that the text goes on."""
_DECODER = json.JSONDecoder()


def whole_json(path: Path, comment: str = "") -> Any:
    """What the JSON file ``path`` holds, after a first line that begins with ``comment`` if that is not empty."""
    try:
        with open_text(path) as file:
            first = file.readline()
            return json.loads(("" if comment and first.startswith(comment) else first) + file.read())
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _damaged(path, error) from None


def items_of_list(path: Path) -> Iterator[Any]:
    """The elements of the list that the JSON file ``path`` holds."""
    try:
        with open_text(path) as file:
            yield from _items(file)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None


def _items(file: IO[str]) -> Iterator[Any]:
    text = file.read(PIECE).lstrip()
    if text[:1] != "[":
        raise ValueError("it should hold a list")
    text, separator = text[1:], "]"
    while True:
        text = _filled(text, file)
        if text.startswith(separator):
            text = text[1:] if separator == "," else text
            if separator == "]":
                break
            text = _filled(text, file)
        elif separator == ",":
            if text[:1] != "]":
                raise ValueError("a comma is missing between the elements of the list")
            break
        item, text = _item(text, file)
        yield item
        separator = ","
    if (text[1:] + file.read(PIECE)).strip():
        raise ValueError("something follows the list")


def _filled(text: str, file: IO[str]) -> str:
    """``text`` without spaces at its beginning, and with more of the file if nothing else is left."""
    text = text.lstrip()
    while not text:
        piece = file.read(PIECE)
        if not piece:
            raise ValueError("the list is not closed")
        text = piece.lstrip()
    return text


def _item(text: str, file: IO[str]) -> tuple[Any, str]:
    """The element that ``text`` begins with, read on as far as it takes, and what follows it."""
    while True:
        try:
            item, end = _DECODER.raw_decode(text)
            if end < len(text):
                return item, text[end:]
        except json.JSONDecodeError as error:
            if error.pos < len(text) - LONGEST_TOKEN and not error.msg.startswith("Unterminated string"):
                raise
        more = file.read(max(PIECE, len(text)))
        if not more:
            return _DECODER.decode(text), ""
        text += more


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged JSON: {type(error).__name__}: {str(error)[:200]}")
