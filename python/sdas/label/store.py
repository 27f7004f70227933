"""Labels kept under the address of what they are labels of, so that none is computed twice.

    with LabelStore.open("runs/mine/labels") as store:
        key = address(frame, oracle.method)
        store.put(key, frame, label)
        store.get(key)

The store is an SQLite file in a folder, with a write-ahead log: each label is one transaction, on disk when ``put``
returns. What is killed loses the labels in flight alone, and any number of processes may write at once.

An address is the SHA-256 of the method with all its settings and of numbers, positions, cell, pbc, charge and spin, bit
for bit. Each row carries the SHA-256 of its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sdas.data.frame import Frame
from sdas.errors import LabelError
from sdas.label.oracle import Failure, Kind, Label

DATABASE, CLAIMS = "labels.sqlite", "claims.lock"
APPLICATION, VERSION = 0x53444153, 1
PATIENCE_S = 60.0
"""How long a write waits for those of other processes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS labels (
    key TEXT PRIMARY KEY, energy REAL NOT NULL, forces BLOB NOT NULL, stress BLOB,
    numbers BLOB NOT NULL, positions BLOB NOT NULL, cell BLOB, pbc BLOB NOT NULL, charge REAL, spin REAL,
    facts TEXT NOT NULL, written REAL NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    key TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, facts TEXT NOT NULL, source TEXT NOT NULL,
    written REAL NOT NULL);
CREATE INDEX IF NOT EXISTS failures_by_key ON failures (key);
"""


def address(frame: Frame, method: Mapping[str, Any]) -> str:
    """The key of a label: equal for equal structures and methods, whatever the source of the frame."""
    words = {"method": dict(method), "state": frame.state}
    digest = hashlib.sha256(json.dumps(words, sort_keys=True, separators=(",", ":")).encode())
    cell = frame.cell if frame.pbc.any() and frame.cell is not None else np.zeros((3, 3))
    for values in (frame.numbers, frame.positions, cell, frame.pbc):
        plain = np.ascontiguousarray(values) + (0 if values.dtype == np.bool_ else values.dtype.type(0))  # no −0.0
        digest.update(str(plain.shape).encode() + plain.astype(plain.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


class LabelStore:
    """The labels in a folder. One object belongs to one thread; use it in a ``with`` block, or close it."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, claims: int) -> None:
        self.folder, self._connection, self._claims = folder, connection, claims

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> LabelStore:
        """The store in ``folder``, made if there is none. Raises :class:`LabelError` for a file that is no store."""
        place = Path(folder)
        path = place / DATABASE
        place.mkdir(parents=True, exist_ok=True)
        with _errors_naming(path):
            connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
            try:
                _prepare(connection, path)
                claims = os.open(place / CLAIMS, os.O_RDWR | os.O_CREAT, 0o666)
            except BaseException:
                connection.close()
                raise
        return cls(place, connection, claims)

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the claims and the file."""
        os.close(self._claims)
        self._connection.close()

    def __len__(self) -> int:
        """The number of labels."""
        return int(self._row("SELECT count(*) FROM labels")[0])

    def __contains__(self, key: str) -> bool:
        return self._row("SELECT 1 FROM labels WHERE key = ?", key) is not None

    def get(self, key: str) -> Label | None:
        """The label under ``key``, or None. Raises :class:`LabelError` for a row that its checksum does not fit."""
        row = self._row("SELECT energy, forces, stress, facts, checksum FROM labels WHERE key = ?", key)
        if row is None:
            return None
        energy, forces, stress, facts, checksum = row
        if checksum != _checksum(key, energy, forces, stress, facts):
            raise LabelError(
                f"{self.folder / DATABASE}: the label {key[:12]}… is damaged; remove it with "
                f"\"DELETE FROM labels WHERE key = '{key}'\" and label again"
            )
        return Label(energy, _array(forces, -1), None if stress is None else _array(stress, 3), json.loads(facts))

    def put(self, key: str, frame: Frame, label: Label) -> None:
        """Write a label, once: one that is there stays."""
        forces = _bytes(label.forces)
        stress = None if label.stress is None else _bytes(label.stress)
        facts = json.dumps(dict(label.facts), sort_keys=True, allow_nan=False)
        cell = None if frame.cell is None else _bytes(frame.cell)
        energy = float(label.energy)
        checksum = _checksum(key, energy, forces, stress, facts)
        self._write(
            "INSERT OR IGNORE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            key, energy, forces, stress, frame.numbers.astype("<i8").tobytes(), _bytes(frame.positions), cell,
            frame.pbc.tobytes(), frame.charge, frame.spin, facts, time.time(), checksum,
        )  # fmt: skip

    def failure(self, key: str) -> Failure | None:
        """The last failure under ``key``, or None."""
        row = self._row("SELECT kind, reason, facts FROM failures WHERE key = ? ORDER BY rowid DESC LIMIT 1", key)
        if row is None or row[0] not in get_args(Kind):
            return None
        return Failure(row[0], row[1], json.loads(row[2]))

    def record_failure(self, key: str, frame: Frame, failure: Failure) -> None:
        """Note why a frame has no label."""
        facts = json.dumps(dict(failure.facts), sort_keys=True)
        self._write(
            "INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?)",
            key, failure.kind, failure.reason, facts, frame.source, time.time(),
        )  # fmt: skip

    def claim(self, key: str) -> bool:
        """Whether this process may compute ``key`` now: no other one does. The system frees claims of dead processes.

        A lock on one byte, whose place the key gives, of a file that nobody writes to.
        """
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks: then two processes may compute the same
            return True
        return True

    def release(self, key: str) -> None:
        """Free a claim."""
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _place(key))
        except OSError:
            return

    def _row(self, query: str, *values: Any) -> Any:
        with _errors_naming(self.folder / DATABASE):
            return self._connection.execute(query, values).fetchone()

    def _write(self, query: str, *values: Any) -> None:
        with _errors_naming(self.folder / DATABASE):
            self._connection.execute(query, values)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse the data bases of others, and make the tables."""
    used = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if used and application != APPLICATION:  # read in this order, for another process may make the tables meanwhile
        raise LabelError(f"{path}: is a data base of something else, no store of labels")
    if version > VERSION:
        raise LabelError(f"{path}: is of version {version} of stores; this program knows version {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Within, an error of SQLite, a full disk among them, is one of ours that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise LabelError(f"{path}: {error}") from error


def _place(key: str) -> int:
    return int(key[:15], 16)


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def _array(stored: bytes, rows: int) -> np.ndarray:
    return np.frombuffer(stored, dtype="<f8").astype(np.float64).reshape(rows, 3)


def _checksum(key: str, energy: float, forces: bytes, stress: bytes | None, facts: str) -> str:
    content = b"\0".join([key.encode(), energy.hex().encode(), forces, stress or b"", facts.encode()])
    return hashlib.sha256(content).hexdigest()
