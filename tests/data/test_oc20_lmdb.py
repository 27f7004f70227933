"""OC20's LMDB files: read without torch_geometric, and without running what a pickle names."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from sdas.data import DataError, read_frames
from sdas.data.readers.restricted_pickle import load_record

lmdb = pytest.importorskip("lmdb", reason="the LMDB tests need the package lmdb")

SLAB = np.array([[0.0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [1.2, 1.2, 1.8]])


@pytest.fixture
def graph_classes(monkeypatch):
    """Stand-ins with the names and the pickled layout of torch_geometric 2, there only while pickles are made."""
    data, storage = types.ModuleType("torch_geometric.data.data"), types.ModuleType("torch_geometric.data.storage")

    class GlobalStorage:
        def __init__(self, parent, fields):
            self._parent = parent
            self._mapping = fields

    class Data:
        def __init__(self, **fields):
            self._store = GlobalStorage(self, fields)

    for module, kind in ((data, Data), (storage, GlobalStorage)):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("torch_geometric", "torch_geometric.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return Data


def fields(index=0, **changes):
    rng = np.random.default_rng(index)
    values = {
        "pos": torch.tensor(SLAB + 0.01 * rng.normal(size=(4, 3)), dtype=torch.float32),
        "atomic_numbers": torch.tensor([29.0, 29.0, 29.0, 8.0]),
        "cell": 10 * torch.eye(3)[None],
        "y": -1.5 * index,
        "force": torch.full((4, 3), float(index)),
        "natoms": 4,
        "tags": torch.tensor([0, 0, 1, 2]),
        "fixed": torch.tensor([1.0, 1.0, 0.0, 0.0]),
        "sid": np.int64(7),
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def write(path, records, length=None, protocol=pickle.HIGHEST_PROTOCOL):
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as write:
        for index, record in enumerate(records):
            data = record if isinstance(record, bytes) else pickle.dumps(record, protocol=protocol)
            write.put(str(index).encode(), data)
        if length is not None:
            write.put(b"length", pickle.dumps(length))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("length", [None, 12])
def test_records_are_read_in_numerical_order(tmp_path, graph_classes, monkeypatch, protocol, length):
    path = write(tmp_path / "data.lmdb", [graph_classes(**fields(i)) for i in range(12)], length, protocol)
    for name in [name for name in sys.modules if name.startswith("torch_geometric")]:
        monkeypatch.delitem(sys.modules, name)
    frames = list(read_frames(path))
    assert [frame.energy for frame in frames] == [-1.5 * i for i in range(12)]
    assert frames[11].source == f"{path}: record 11"
    assert frames[3].numbers.tolist() == [29, 29, 29, 8]
    assert frames[3].pbc.all()
    np.testing.assert_array_equal(frames[3].cell, 10 * np.eye(3))
    np.testing.assert_array_equal(frames[3].forces, np.full((4, 3), 3.0))
    np.testing.assert_array_equal(frames[3].positions, fields(3)["pos"].numpy())


def test_records_of_version_1_keep_their_fields_as_attributes(tmp_path, graph_classes):
    record = graph_classes()
    del record._store
    record.__dict__.update(fields(2), edge_index=None, x=None)
    assert next(read_frames(write(tmp_path / "a.lmdb", [record]))).energy == -3.0


def test_every_file_of_a_folder_is_read(tmp_path, graph_classes):
    for name in ("data.0001.lmdb", "data.0000.lmdb"):
        write(tmp_path / name, [graph_classes(**fields(int(name[8])))])
    assert [frame.energy for frame in read_frames(tmp_path)] == [0.0, -1.5]


def test_a_relaxation_record_is_read_only_by_name(tmp_path, graph_classes):
    relaxed = torch.tensor(SLAB * 1.01, dtype=torch.float32)
    record = fields(y=None, force=None, y_init=1.0, y_relaxed=-2.0, pos_relaxed=relaxed)
    path = write(tmp_path / "a.lmdb", [graph_classes(**record)])
    with pytest.raises(DataError, match=r"record 0: a relaxation record.*y_relaxed"):
        next(read_frames(path))
    end = next(read_frames(path, energy_key="y_relaxed", require=("energy",)))
    assert end.energy == -2.0
    np.testing.assert_array_equal(end.positions, relaxed.numpy())
    start = next(read_frames(path, energy_key="y_init", require=("energy",)))
    assert start.energy == 1.0
    np.testing.assert_array_equal(start.positions, fields()["pos"].numpy())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pos": None}, "no field pos; it has atomic_numbers"),
        ({"force": None}, "record 0: no forces"),
        ({"y": None}, "record 0: no energy"),
        ({"energy": 3.0}, "both y and energy could be the energy"),
        (
            {"force": torch.tensor([[0.0] * 3] * 2 + [[1.0] * 3] * 2)},
            "forces of its 2 fixed atoms are all exactly zero",
        ),
        ({"fixed": torch.zeros(3)}, "fixed has 3 entries for 4 atoms"),
        ({"natoms": 5}, "natoms is 5"),
        ({"cell": None, "pbc": torch.ones(1, 3, dtype=torch.bool)}, "no cell is given"),
        ({"force": torch.full((4, 3), float("nan"))}, "record 0: forces hold NaN"),
    ],
)
def test_wrong_records_are_refused(tmp_path, graph_classes, changes, complaint):
    with pytest.raises(DataError, match=complaint):
        next(read_frames(write(tmp_path / "a.lmdb", [graph_classes(**fields(**changes))])))


class Exploit:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_other_functions_is_not_run(tmp_path, protocol):
    import os

    mark = tmp_path / "ran"
    for record in (Exploit(os.system, f"touch {mark}"), {"y": Exploit(eval, f"open({str(mark)!r}, 'w')")}):
        with pytest.raises(
            DataError, match=r"names (posix\.system|builtins\.eval|__builtin__\.eval|nt\.system).*not run"
        ):
            load_record(pickle.dumps(record, protocol=protocol), "a.lmdb: record 0")
    nested = pickle.dumps(Exploit(torch.storage._load_from_bytes, pickle.dumps(Exploit(os.system, f"touch {mark}"))))
    with pytest.raises(DataError, match=r"names (posix|nt)\.system.*not run"):
        load_record(nested, "a.lmdb: record 0")
    assert not mark.exists()


def test_damaged_files_are_refused(tmp_path, graph_classes):
    path = write(tmp_path / "a.lmdb", [graph_classes(**fields())], length=3)
    with pytest.raises(DataError, match="record 1 of 3 is missing"):
        list(read_frames(path))
    noise = tmp_path / "b.lmdb"
    noise.write_bytes(b"noise" * 1000)
    with pytest.raises(DataError, match="not a complete LMDB file"):
        list(read_frames(noise))
    whole = pickle.dumps(graph_classes(**fields()))
    with pytest.raises(DataError, match="record 0: damaged record"):
        list(read_frames(write(tmp_path / "c.lmdb", [whole[:-20]])))
    with pytest.raises(DataError, match="holds a list, not a graph record"):
        list(read_frames(write(tmp_path / "d.lmdb", [[1, 2]])))
