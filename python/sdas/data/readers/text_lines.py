"""Text files line by line, packed or not, with errors that name the line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from sdas.data.errors import DataError
from sdas.data.readers.packed import open_text


class Lines:
    """The lines of ``path``, one after the other; to be used in a ``with`` statement. number: of the last one."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self._file = open_text(path)

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def where(self) -> str:
        """The file and the number of the last line."""
        return f"{self.path}: line {self.number}"

    def next(self) -> str | None:
        """The next line without its end, None after the last one."""
        try:
            line = self._file.readline()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: after line {self.number}: not UTF-8 text: {error.reason}") from None
        if not line:
            return None
        self.number += 1
        return line.rstrip("\n")

    def next_filled(self) -> str | None:
        """The next line that is not blank, None if there is none."""
        line = self.next()
        while line is not None and not line.strip():
            line = self.next()
        return line

    def needed(self, what: str) -> str:
        """The next line; raises :class:`DataError` if the file ends where ``what`` should be."""
        line = self.next()
        if line is None:
            raise DataError(f"{self.path}: ends after line {self.number}, where {what} should be")
        return line

    def count(self, text: str, what: str) -> int:
        """The number of ``what`` in ``text``, at least 1."""
        word = text.strip()
        if not word.isdecimal() or len(word) > 40 or int(word) < 1:
            raise DataError(f"{self.where}: expected the number of {what}, got {word[:60]!r}")
        return int(word)

    def numbers(self, words: Iterable[str], count: int, what: str) -> list[float]:
        """``words`` as so many numbers; ``*^`` is an exponent, as Mathematica writes it."""
        try:
            numbers = [float(word.replace("*^", "e")) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise DataError(f"{self.where}: {what} should be {count} numbers")
        return numbers
