"""A label is found again under its address, whole or not at all."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from sdas.errors import LabelError
from sdas.label import Failure, Label, LabelStore, address
from sdas.label.store import DATABASE

METHOD = {"oracle": "tblite", "accuracy": 0.1}


@pytest.fixture
def water(molecule):
    return molecule([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])


@pytest.fixture
def label():
    return Label(-1.5, np.arange(9.0).reshape(3, 3) / 7, np.eye(3) / 3, {"seconds": 0.1})


def test_an_address_is_of_structure_and_method_alone(water):
    key = address(water, METHOD)
    assert address(replace(water, source="elsewhere", energy=3.0), METHOD) == key
    assert address(replace(water, cell=np.eye(3)), METHOD) == key, "a cell means nothing in open space"
    negative_zeros = np.where(water.positions == 0, -0.0, water.positions)
    assert address(replace(water, positions=negative_zeros), dict(reversed(METHOD.items()))) == key
    others = [
        (replace(water, numbers=np.array([8, 1, 2])), METHOD),
        (replace(water, positions=np.nextafter(water.positions, 9)), METHOD),
        (replace(water, cell=np.eye(3), pbc=np.ones(3, bool)), METHOD),
        (replace(water, cell=np.eye(3), pbc=np.array([True, True, False])), METHOD),
        (replace(water, cell=2 * np.eye(3), pbc=np.ones(3, bool)), METHOD),
        (replace(water, charge=1.0), METHOD),
        (replace(water, spin=1.0), METHOD),
        (water, METHOD | {"accuracy": 1}),
    ]
    assert len({key, *(address(*other) for other in others)}) == 1 + len(others)


def test_a_label_comes_back_to_the_last_bit(tmp_path, water, label):
    with LabelStore.open(tmp_path / "s") as store:
        assert store.get("k") is None
        store.put("k", water, label)
        store.put("without stress", water, replace(label, stress=None))
    with LabelStore.open(tmp_path / "s") as store:
        found = store.get("k")
        assert (found.energy, found.facts) == (label.energy, label.facts)
        np.testing.assert_array_equal(found.forces, label.forces)
        np.testing.assert_array_equal(found.stress, label.stress)
        assert store.get("without stress").stress is None
        assert len(store) == 2
        assert "k" in store


def test_the_first_label_stays(tmp_path, water, label):
    with LabelStore.open(tmp_path) as store:
        store.put("k", water, label)
        store.put("k", water, replace(label, energy=9.0))
        assert store.get("k").energy == label.energy


def test_a_failure_is_remembered_and_is_no_label(tmp_path, water):
    with LabelStore.open(tmp_path) as store:
        store.record_failure("k", water, Failure("timeout", "slow"))
        store.record_failure("k", water, Failure("unconverged", "no luck", {"seconds": 2}))
        assert store.failure("k") == Failure("unconverged", "no luck", {"seconds": 2})
        assert store.failure("other") is None
        assert store.get("k") is None


def test_a_changed_digit_is_noticed(tmp_path, water, label):
    with LabelStore.open(tmp_path) as store:
        store.put("k", water, label)
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("UPDATE labels SET energy = -1.6")
    connection.close()
    with LabelStore.open(tmp_path) as store, pytest.raises(LabelError, match=r"labels.sqlite: the label k… is damaged"):
        store.get("k")


def test_a_full_disk_loses_no_label_that_is_written(tmp_path, water, label):
    with LabelStore.open(tmp_path) as store:
        store.put("k", water, label)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        big = replace(water, numbers=np.ones(9999, int), positions=np.zeros((9999, 3)))
        with pytest.raises(LabelError, match=r"labels.sqlite: database or disk is full"):
            store.put("big", big, replace(label, forces=np.zeros((9999, 3))))
    with LabelStore.open(tmp_path) as store:
        assert store.get("k").energy == label.energy
        assert len(store) == 1


def test_files_of_others_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / DATABASE).write_text("not a data base, but long enough to be none" * 20)
    with pytest.raises(LabelError, match="file is not a database"):
        LabelStore.open(tmp_path / "text")
    for application in (0, 7):
        (tmp_path / f"{application}").mkdir()
        with sqlite3.connect(tmp_path / f"{application}" / DATABASE) as connection:
            connection.execute(f"PRAGMA application_id = {application}")
            connection.execute("CREATE TABLE cats (name)")
        connection.close()
        with pytest.raises(LabelError, match="something else"):
            LabelStore.open(tmp_path / f"{application}")
