"""DeePMD npy folders: types to elements, sets in order, virial to stress, mixed types, and wrong folders."""

import shutil

import numpy as np
import pytest

from sdas.data import DataError, read_frames

RNG = np.random.default_rng(0)
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def make(folder, sets=(2, 3), type_map="O\nH\n", **arrays):
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("0 1 1\n")
    if type_map:
        (folder / "type_map.raw").write_text(type_map)
    for number, count in enumerate(sets):
        place = folder / f"set.{number:03d}"
        place.mkdir()
        stored = {
            "coord": (WATER + 0.01 * RNG.normal(size=(count, 3, 3))).reshape(count, 9),
            "box": np.tile((8 * np.eye(3)).ravel(), (count, 1)),
            "energy": np.arange(count) + 100.0 * number,
            "force": RNG.normal(size=(count, 9)).astype(np.float32),
        }
        for name, array in {**stored, **arrays}.items():
            if array is not None:
                np.save(place / f"{name}.npy", array)
    return folder


def test_sets_are_read_in_order(tmp_path):
    folder = make(tmp_path / "w")
    frames = list(read_frames(folder))
    assert [frame.energy for frame in frames] == [0, 1, 100, 101, 102]
    assert frames[3].source == f"{folder}/set.001: frame 1"
    assert frames[0].numbers.tolist() == [8, 1, 1]
    assert frames[0].pbc.all()
    np.testing.assert_array_equal(frames[0].cell, 8 * np.eye(3))
    np.testing.assert_array_equal(frames[4].forces, np.load(folder / "set.001/force.npy")[2].reshape(3, 3))


def test_systems_below_a_folder_are_all_read(tmp_path):
    make(tmp_path / "all" / "a", sets=(1,))
    make(tmp_path / "all" / "b", sets=(2,))
    assert len(list(read_frames(tmp_path / "all"))) == 3


def test_types_need_elements(tmp_path):
    folder = make(tmp_path / "w", type_map=None)
    with pytest.raises(DataError, match=r"no type_map.raw.*--type-map"):
        next(read_frames(folder))
    assert next(read_frames(folder, type_map=["O", "H"])).numbers.tolist() == [8, 1, 1]
    with pytest.raises(DataError, match="'Xx', which is no chemical element"):
        next(read_frames(folder, type_map=["Xx", "H"]))
    with pytest.raises(DataError, match="type 1 is beyond the 1 entries"):
        next(read_frames(folder, type_map=["O"]))


def test_a_virial_is_minus_volume_times_stress(tmp_path):
    virial = RNG.normal(size=(3, 3))
    virial += virial.T
    folder = make(tmp_path / "w", sets=(1,), virial=virial.reshape(1, 9))
    np.testing.assert_allclose(next(read_frames(folder)).stress, -virial / 512)


def test_without_periodicity(tmp_path):
    folder = make(tmp_path / "w", box=None)
    with pytest.raises(DataError, match=r"no box\.npy.*nopbc"):
        next(read_frames(folder))
    (folder / "nopbc").touch()
    frame = next(read_frames(folder))
    assert frame.cell is None
    assert not frame.pbc.any()


def test_mixed_types_drop_virtual_atoms(tmp_path):
    mixed = np.array([[0, 1, 1], [0, 1, -1]])
    frames = list(read_frames(make(tmp_path / "w", sets=(2,), real_atom_types=mixed)))
    assert [len(frame) for frame in frames] == [3, 2]
    assert frames[1].forces.shape == (2, 3)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"coord": None}, "no coord.npy"),
        ({"coord": np.zeros((2, 6))}, "coord has 6 numbers where 3 × 3"),
        ({"energy": np.zeros(3)}, "energy.npy has 3 rows for 2 frames"),
        ({"energy": None}, "frame 0: no energy"),
        ({"force": None}, "frame 0: no forces"),
        ({"force": np.full((2, 9), np.nan)}, "frame 0: forces hold NaN"),
        ({"box": np.zeros((2, 9))}, "frame 0: periodic along abc but no cell"),
    ],
)
def test_wrong_folders_are_refused(tmp_path, arrays, complaint):
    with pytest.raises(DataError, match=complaint):
        list(read_frames(make(tmp_path / "w", sets=(2,), **arrays)))


@pytest.mark.parametrize("form", ["raw", "npy", "npy/mixed", "hdf5"])
def test_what_dpdata_writes_is_read_alike(tmp_path, form):
    dpdata = pytest.importorskip("dpdata", reason="DPDATA ABSENT: pip install dpdata; its systems are not read back")
    rng = np.random.default_rng(3)
    virial = rng.normal(size=(2, 3, 3))
    data = {
        "atom_names": ["O", "H"],
        "atom_numbs": [1, 2],
        "atom_types": np.array([0, 1, 1]),
        "orig": np.zeros(3),
        "cells": np.tile(8 * np.eye(3), (2, 1, 1)),
        "coords": WATER + 0.01 * rng.normal(size=(2, 3, 3)),
        "energies": np.array([-1.5, -2.5]),
        "forces": rng.normal(size=(2, 3, 3)),
        "virials": virial + virial.transpose(0, 2, 1),
    }
    place = tmp_path / ("a.hdf5" if form == "hdf5" else "system")
    dpdata.LabeledSystem(data=data).to(f"deepmd/{form}", str(place))
    frames = list(read_frames(place))
    assert len(frames) == 2
    for k, frame in enumerate(frames):
        assert frame.numbers.tolist() == [8, 1, 1]
        assert frame.energy == pytest.approx(data["energies"][k], rel=1e-6)
        np.testing.assert_allclose(frame.positions, data["coords"][k], atol=1e-6)
        np.testing.assert_allclose(frame.forces, data["forces"][k], atol=1e-6)
        np.testing.assert_allclose(frame.stress, -data["virials"][k] / 512, atol=1e-8)


def test_text_beside_sets_is_not_read_twice(tmp_path):
    folder = make(tmp_path / "w", sets=(2,))
    for name in ("coord", "box", "energy", "force"):
        np.savetxt(folder / f"{name}.raw", np.load(folder / "set.000" / f"{name}.npy"))
    assert len(list(read_frames(folder))) == 2
    shutil.rmtree(folder / "set.000")
    assert len(list(read_frames(folder))) == 2
    (folder / "energy.raw").write_text("1.0\n")
    with pytest.raises(DataError, match=r"energy\.raw has 1 rows for 2 frames"):
        list(read_frames(folder))


def test_damaged_folders_are_refused(tmp_path):
    folder = make(tmp_path / "w", sets=(2,))
    file = folder / "set.000" / "force.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"force.npy: not a complete .npy file"):
        next(read_frames(folder))
    bare = make(tmp_path / "v", sets=())
    with pytest.raises(DataError, match="no set"):
        next(read_frames(bare))
    with pytest.raises(DataError, match="a folder of no known format"):
        read_frames(tmp_path / "w" / "set.000")
