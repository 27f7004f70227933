"""The ledger of an adaptive run, ``ledger.jsonl`` in its folder: see :mod:`sdas.run.ledger`."""

from __future__ import annotations

from pathlib import Path

from sdas.errors import ScalingError
from sdas.run.folder import LEDGER
from sdas.run.ledger import Ledger, Line, read_lines

__all__ = ["Ledger", "Line", "open_ledger", "read_ledger"]


def open_ledger(folder: Path, writes: bool) -> Ledger:
    """The ledger in a folder, a new one where there is none; raises :class:`ScalingError` if it is damaged."""
    return Ledger(folder / LEDGER, writes, ScalingError)


def read_ledger(folder: Path) -> list[Line]:
    """The lines of the ledger in a folder; raises :class:`ScalingError` if there is none or one is damaged."""
    if not (folder / LEDGER).exists():
        raise ScalingError(f"{folder / LEDGER} does not exist: 'sdas scale' writes it")
    return read_lines(folder / LEDGER, ScalingError)
