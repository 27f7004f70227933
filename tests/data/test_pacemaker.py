"""Tables of pacemaker: pickles of every protocol and age of pandas are read, and nothing in them is run."""

from __future__ import annotations

import copyreg
import gzip
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.spacegroup import crystal

from sdas.data import DataError, read_frames
from sdas.data.reading_notes import ReadingNotes

pandas = pytest.importorskip("pandas", reason="PANDAS ABSENT: pip install pandas; no table of pacemaker is written")
pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")
RNG = np.random.default_rng(0)


def structures() -> list[Atoms]:
    """Whatever may hang on a structure: a calculator, a constraint, a space group, nested info."""
    found = [
        bulk("Cu", cubic=True),
        molecule("H2O"),
        crystal("Na", [(0, 0, 0)], spacegroup=229, cellpar=[4.2] * 3 + [90] * 3),
    ]
    found[0].calc = SinglePointCalculator(found[0], energy=1.0, forces=np.zeros((4, 3)))
    found[0].info = {"label": "x", "nested": {"a": [1, {"b": 2}]}, "number": np.float64(3.0)}
    found[1].set_constraint(FixAtoms([0]))
    return found


def table(**columns):
    atoms = structures()
    forces = [RNG.normal(size=(len(a), 3)) for a in atoms]
    content = {
        "ase_atoms": atoms,
        "energy": [-1.0, -2.0, -3.0],
        "forces": forces,
        "name": ["a", "b", "ä"],
        "size": [4, 3, 2],
    }
    return pandas.DataFrame({**content, **columns})


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def hold(frames, frame) -> None:
    assert len(frames) == len(frame)
    for found, atoms, energy, forces in zip(frames, frame["ase_atoms"], frame["energy"], frame["forces"], strict=True):
        assert found.numbers.tolist() == atoms.numbers.tolist()
        np.testing.assert_array_equal(found.positions, atoms.positions)
        assert found.pbc.tolist() == atoms.pbc.tolist()
        if atoms.pbc.any():
            np.testing.assert_array_equal(found.cell, atoms.cell.array)
        assert found.energy == energy
        np.testing.assert_array_equal(found.forces, np.asarray(forces))


def variants():
    whole = table()
    yield "as it is", whole
    yield "backwards", whole.iloc[::-1]
    yield "sorted", whole.sort_values("energy").reset_index(drop=True)
    yield "by name", whole.set_index("name")
    yield "twice", pandas.concat([whole, whole])
    yield "lists of forces", whole.assign(forces=[f.tolist() for f in whole["forces"]])


@pytest.mark.parametrize("text_as_objects", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tables_of_every_protocol_are_read(tmp_path, protocol, text_as_objects):
    """Text columns are arrays of pyarrow, of NumPy, or lists of objects, as the versions of pandas have it."""
    with pandas.option_context("future.infer_string", not text_as_objects):
        for name, frame in variants():
            path = tmp_path / f"{name}.pckl.gzip"
            frame.to_pickle(path, compression="gzip", protocol=protocol)
            hold(list(read_frames(path, check_units=False)), frame)


class OldPandas(pickle.Pickler):
    """Writes block managers as pandas did before 1.3: their state is a dictionary by version."""

    def reducer_override(self, value):
        if type(value).__name__ != "BlockManager":
            return NotImplemented
        blocks = [{"values": np.asarray(block.values), "mgr_locs": block.mgr_locs.indexer} for block in value.blocks]
        axes = list(value.axes)
        return copyreg.__newobj__, (type(value),), (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}})


def test_tables_of_old_pandas_are_read(tmp_path):
    with pandas.option_context("future.infer_string", False):
        frame = table()
        stream = io.BytesIO()
        OldPandas(stream, protocol=4).dump(frame)
    hold(list(read_frames(written(tmp_path / "a.pckl.gzip", stream.getvalue()), check_units=False)), frame)


def test_the_corrected_energy_is_read_where_there_is_no_other(tmp_path):
    frame = table(energy_corrected=[0.5, 0.25, 0.125])
    path = tmp_path / "a.pckl.gzip"
    frame.drop(columns="energy").to_pickle(path, compression="gzip")
    notes = ReadingNotes()
    assert [f.energy for f in read_frames(path, check_units=False, notes=notes)] == [0.5, 0.25, 0.125]
    assert dict(notes.labels["energy"]) == {"energy_corrected": 3}
    frame.to_pickle(path, compression="gzip")
    notes = ReadingNotes()
    assert [f.energy for f in read_frames(path, check_units=False, notes=notes)] == [-1.0, -2.0, -3.0]
    assert notes.document()["unused"]["energy_corrected"] == {"frames": 3, "option": "energy_key"}
    frames = read_frames(path, check_units=False, energy_key="energy_corrected")
    assert [f.energy for f in frames] == [0.5, 0.25, 0.125]


def test_zeros_on_fixed_atoms_are_refused(tmp_path):
    frame = table()
    frame["forces"][1][0] = 0.0
    frame.to_pickle(tmp_path / "a.pckl.gzip", compression="gzip")
    with pytest.raises(DataError, match="row 2: the stored forces of its 1 fixed atoms are all exactly zero"):
        list(read_frames(tmp_path / "a.pckl.gzip", check_units=False))


class Runs:
    """Would write a file if its pickle were run."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda mark: Runs(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Runs(open, str(mark), "w"), "open"),
        (lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Runs(getattr(pandas, "read_pickle"), str(mark)), "read_pickle"),  # noqa: B009
    ],
)
def test_nothing_is_run(tmp_path, make, named):
    mark = tmp_path / "mark"
    whole = table()
    whole["extra"] = pandas.Series([make(mark)] * 3, dtype=object)
    path = written(tmp_path / "a.pckl.gzip", pickle.dumps(whole, protocol=4))
    with pytest.raises(DataError, match=rf"a\.pckl\.gzip: its pickle names .*{named}.*it was not run"):
        list(read_frames(path))
    assert not mark.exists()


def test_functions_of_ase_and_methods_are_not_called(tmp_path):
    import ase.io

    path = written(tmp_path / "a.pckl.gzip", pickle.dumps(table(extra=[Runs(ase.io.write, "x", "y")] * 3)))
    with pytest.raises(DataError, match=r"names ase\.io\.formats\.write"):
        list(read_frames(path))
    whole = table()
    whole["extra"] = pandas.Series([Runs(getattr, "text", "absent")] * 3, dtype=object)
    hold(list(read_frames(written(path, pickle.dumps(whole)), check_units=False)), whole)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (3, "not a DataFrame of pandas"),
        ({"ase_atoms": []}, "not a DataFrame of pandas"),
        ([[[]]], "not a DataFrame of pandas"),
        (lambda: table().drop(columns="ase_atoms"), "no column ase_atoms; it has energy, forces, name, size"),
        (lambda: table(ase_atoms=[1, 2, 3]), "row 1: ase_atoms is no structure of ASE"),
        (lambda: table(energy=["a", "b", "c"]), "row 1"),
        (lambda: table(forces=[np.zeros((2, 3))] * 3), "row 1: forces must have shape"),
        (lambda: table(forces=[[[0.0] * 3] * 40_000] * 3), "row 1"),
        (lambda: table().iloc[:0], "a.pckl.gzip"),
    ],
)
def test_other_content_is_refused_by_name(tmp_path, value, complaint):
    content = pickle.dumps(value() if callable(value) else value)
    with pytest.raises(DataError, match=complaint) as caught:
        list(read_frames(written(tmp_path / "a.pckl.gzip", content), check_units=False))
    assert "a.pckl.gzip" in str(caught.value)


def test_an_array_of_text_holds_to_its_bytes(tmp_path):
    """Offsets of pyarrow beyond the bytes, or running backwards, read nothing else."""
    with pandas.option_context("future.infer_string", True):
        content = pickle.dumps(table(), protocol=4)
    offsets = struct.pack("<6q", 0, 9, 15, 21, 25, 29)
    if offsets not in content:
        pytest.skip("PYARROW ABSENT: pandas keeps text in another way")
    for wrong in ((0, 9, 15, 21, 25, 10**9), (0, 15, 9, 21, 25, 29), (-8, 9, 15, 21, 25, 29)):
        path = written(tmp_path / "a.pckl.gzip", content.replace(offsets, struct.pack("<6q", *wrong)))
        with pytest.raises(DataError, match=r"damaged record: ValueError: an array of pyarrow whose offsets"):
            list(read_frames(path))
