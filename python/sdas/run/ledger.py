"""The ledger of a long run: every act is announced before it is done, and its outcome is noted after it.

A ledger is a file with a JSON object per line, appended and forced to disk. A resumed run goes through the same acts
again. Those whose outcome is in the ledger are not done: :meth:`Ledger.once` gives back what was noted. So the ledger
of a run that was killed ends as that of one that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdas.documents import parse_json
from sdas.errors import SdasError
from sdas.files import errors_naming

Line = dict[str, Any]


class Ledger:
    """The ledger in a file. ``writes``: whether this process writes it; of several only the first does.

    Raises ``kind`` for a line that is damaged. A last line that was cut short is dropped.
    """

    def __init__(self, path: Path, writes: bool, kind: type[SdasError] = SdasError) -> None:
        self.path, self.writes, self.kind = path, writes, kind
        self._noted, length = _read(path, kind)
        self._next = 0
        if writes and path.exists():
            os.truncate(path, length)

    @property
    def replaying(self) -> bool:
        """Whether the next act is in the ledger already."""
        return self._next < len(self._noted)

    def once(self, kind: str, act: Callable[[], Mapping[str, Any]]) -> Line:
        """The outcome of an act of that kind: the noted one, or that of ``act()``, which is noted now."""
        if self.replaying:
            line, number = self._noted[self._next], self._next + 1
            if line.get("kind") != kind:
                raise self.kind(
                    f"{self.path}: line {number} notes {line.get('kind')!r} where {kind!r} would follow: it was "
                    "edited, or written by another version; start another run"
                )
            self._next += 1
            return line
        text = json.dumps({"kind": kind, **act()}, allow_nan=False, ensure_ascii=False)
        if self.writes:
            self._append(text + "\n")
        return parse_json(text.encode(), self.path)

    def _append(self, text: str) -> None:
        with errors_naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def read_lines(path: Path, kind: type[SdasError] = SdasError) -> list[Line]:
    """The whole lines of a ledger, none where there is no file; raises ``kind`` if one is damaged."""
    return _read(path, kind)[0]


def _read(path: Path, kind: type[SdasError]) -> tuple[list[Line], int]:
    """Whole lines, and how many bytes they take."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise kind(f"{path}: cannot be read: {error.strerror}") from None
    whole = content[: content.rfind(b"\n") + 1]
    lines = [
        parse_json(line, f"{path}: line {number}", kind, "the run cannot go on; start another")
        for number, line in enumerate(whole.splitlines(), start=1)
    ]
    return lines, len(whole)
