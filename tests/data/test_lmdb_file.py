"""LMDB files are read as the library reads them, and a cut or damaged one is refused instead of ending the process."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdas.data import DataError
from sdas.data.readers.lmdb_file import LmdbFile

lmdb = pytest.importorskip("lmdb", reason="the LMDB tests need the package lmdb")
_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)


def write(path: Path, values: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(path), subdir=False, map_size=1 << 28) as environment:
        items = list(values.items())
        for start in range(0, len(items), 100):  # many transactions: pages are freed and used again
            with environment.begin(write=True) as transaction:
                for key, value in items[start : start + 100]:
                    transaction.put(key, value)
    return path


def values(count: int, largest: int = 3000) -> dict[bytes, bytes]:
    """Keys as OC20 has them, values within pages and over several."""
    rng = np.random.default_rng(count)
    return {str(k).encode(): rng.bytes(int(rng.integers(largest))) for k in rng.permutation(count)}


def graphs(count: int) -> dict[bytes, bytes]:
    return {
        str(k).encode(): pickle.dumps(
            {"pos": 2.0 * np.arange(600.0).reshape(200, 3), "atomic_numbers": np.ones(200, np.int64), "y": float(k)}, 2
        )
        for k in range(count)
    }


@pytest.mark.parametrize("count", [1, 2, 7, 300, 3000])
@pytest.mark.parametrize("largest", [10, 3000, 40_000])
def test_every_value_is_found_and_no_other(tmp_path, count, largest):
    stored = values(count, largest if count < 3000 else 500)
    with LmdbFile(write(tmp_path / "a.lmdb", stored)) as file:
        assert file.entries == count
        for key, value in stored.items():
            assert file.get(key) == value
        for key in (b"", b"x", b"00", str(count).encode(), b"-1"):
            assert file.get(key) is None


def test_values_that_were_deleted_or_replaced_are_the_last_ones(tmp_path):
    path = write(tmp_path / "a.lmdb", values(500))
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 28) as environment,
        environment.begin(write=True) as transaction,
    ):
        for k in range(0, 500, 3):
            transaction.delete(str(k).encode())
        transaction.put(b"1", b"new")
    with LmdbFile(path) as file:
        assert file.get(b"0") is None
        assert file.get(b"1") == b"new"
        assert file.get(b"2") == values(500)[b"2"]


def test_an_empty_file_holds_nothing(tmp_path):
    with LmdbFile(write(tmp_path / "a.lmdb", {})) as file:
        assert file.get(b"0") is None


def test_a_file_cut_short_is_refused_wherever_it_was_cut(tmp_path):
    whole = write(tmp_path / "whole.lmdb", graphs(40))
    assert hostile.read_in_a_process([whole]) == {"whole.lmdb": "read: 40"}
    size, paths = whole.stat().st_size, []
    for kept in (100, 4096, 5000, 8192, size // 3, size // 2 + 17, size - 4096, size - 1):
        paths.append(shutil.copy(whole, tmp_path / f"{kept}.lmdb"))
        with open(paths[-1], "r+b") as file:
            file.truncate(kept)
    for path, outcome in hostile.read_in_a_process(paths).items():
        assert outcome.startswith("refused: "), (path, outcome)
        assert "not a complete LMDB file" in outcome


def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path / "a.lmdb", graphs(40))
    with LmdbFile(path) as file:
        with open(path, "r+b") as other:
            other.truncate(8192)
        with pytest.raises(DataError, match=r"became shorter while it was read"):
            file.get(b"7")


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_leads_outside_the_file(tmp_path, seed):
    """Whatever bytes of the tree are changed: a value, none, or an error of ours, soon."""
    rng = np.random.default_rng(seed)
    path = write(tmp_path / "a.lmdb", values(400, 5000))
    sound = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(sound)
        for place in rng.integers(len(sound), size=400):
            page = int(rng.integers(len(sound) // 4096)) * 4096
            damaged[page + int(place) % 64] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            with LmdbFile(path) as file:
                for key in rng.integers(400, size=20):
                    file.get(str(key).encode())
        except DataError as error:
            message = str(error)
            assert "LMDB file" in message
