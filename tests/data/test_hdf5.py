"""HDF5 sets: units by attributes, missing labels as NaN, and files that point elsewhere or declare too much."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from sdas.data import DataError, read_frames
from sdas.data.readers import detect_format
from sdas.data.reading_notes import ReadingNotes
from sdas.data.units import BOHR, HARTREE, KJ_PER_MOL

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
COUNT = 4
POSITIONS = WATER + 0.01 * np.random.default_rng(0).normal(size=(COUNT, 3, 3))
FORCES = np.random.default_rng(1).normal(size=(COUNT, 3, 3))
ENERGIES = np.arange(COUNT) - 2.5


def made(path, attributes=None, **data):
    """A file with one group; ``attributes`` name → unit of its data sets."""
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        for name, values in {"atomic_numbers": [8, 1, 1], "positions": POSITIONS, **data}.items():
            if values is not None:
                group[name] = values
        for name, unit in (attributes or {}).items():
            group[name].attrs["units"] = unit
    return path


def test_a_file_that_names_no_unit_must_be_told(tmp_path):
    path = made(tmp_path / "a.h5", energy=ENERGIES, forces=FORCES)
    with pytest.raises(DataError, match=r"a\.h5: /water/positions: neither it nor the file says its unit; give units="):
        next(read_frames(path))
    frame = next(read_frames(path, units="kJ/mol,Å"))
    assert frame.energy == pytest.approx(ENERGIES[0] * KJ_PER_MOL)
    np.testing.assert_allclose(frame.forces, FORCES[0] * KJ_PER_MOL)


def test_units_in_attributes_are_held_to_what_is_asked_for(tmp_path):
    units = {"positions": "Å", "energy": "hartree"}
    path = made(tmp_path / "a.h5", units, energy=ENERGIES)
    assert next(read_frames(path, require=("energy",))).energy == pytest.approx(ENERGIES[0] * HARTREE)
    with pytest.raises(DataError, match=r"units='eV, Å' was asked for, which contradicts the attribute of energy"):
        next(read_frames(path, require=("energy",), units="eV"))
    path = made(tmp_path / "b.h5", {**units, "energy": "furlong"}, energy=ENERGIES)
    with pytest.raises(DataError, match=r"b\.h5: /water: the attribute of energy: unknown unit of energy 'furlong'"):
        next(read_frames(path, require=("energy",)))


def test_nan_is_a_missing_label(tmp_path):
    energies, forces = ENERGIES.copy(), FORCES.copy()
    energies[1], forces[2, 1, 0] = np.nan, np.nan
    data = {"coordinates": POSITIONS, "wb97x_dz.energy": energies, "wb97x_dz.forces": forces, "positions": None}
    path = made(tmp_path / "ani.h5", **data)
    notes = ReadingNotes()
    frames = list(read_frames(path, require=(), notes=notes))
    assert [frame.energy is None for frame in frames] == [False, True, False, False]
    assert [frame.forces is None for frame in frames] == [False, False, True, False]
    assert frames[0].energy == pytest.approx(ENERGIES[0] * HARTREE)
    assert "NaN stands for wb97x_dz.forces that are missing" in notes.remarks
    with pytest.raises(DataError, match="conformation 1: no energy"):
        list(read_frames(path))
    assert len(list(read_frames(path, skip="incomplete", notes=ReadingNotes()))) == 2


def test_another_level_is_read_by_its_name_and_gradients_turn_their_sign(tmp_path):
    data = {"conformations": POSITIONS / BOHR, "positions": None, "dft_total_energy": ENERGIES}
    path = made(tmp_path / "a.h5", **data, formation_energy=ENERGIES + 7, other_gradient=FORCES)
    keys = {"energy_key": "formation_energy", "forces_key": "other_gradient"}
    frame = next(read_frames(path, **keys))
    assert frame.energy == pytest.approx((ENERGIES[0] + 7) * HARTREE)
    np.testing.assert_allclose(frame.forces, -FORCES[0] * HARTREE / BOHR)
    np.testing.assert_allclose(frame.positions, POSITIONS[0], rtol=1e-9)


def test_two_names_for_one_label_are_refused(tmp_path):
    path = made(tmp_path / "a.h5", energy=ENERGIES, REF_energy=ENERGIES)
    with pytest.raises(DataError, match=r"REF_energy and energy could be the energy; choose by energy_key="):
        next(read_frames(path, units="eV", require=()))


def test_groups_of_one_structure_and_charges_are_read(tmp_path):
    path = made(
        tmp_path / "a.h5",
        positions=WATER,
        energy=-1.5,
        forces=FORCES[0],
        total_charge=1,
        cell=9 * np.eye(3),
        unused=3.0,
    )
    notes = ReadingNotes()
    (frame,) = read_frames(path, units="eV", notes=notes)
    assert frame.energy == -1.5
    assert frame.pbc.all()
    assert notes.document()["unused"] == {"unused": {"frames": 1}}
    assert any("charge 1 in 1 frames" in line for line in notes.document()["remarks"])


def test_axes_that_are_not_periodic_are_honoured(tmp_path):
    path = made(tmp_path / "a.h5", cell=9 * np.eye(3), pbc=[True, True, False], energy=ENERGIES)
    assert next(read_frames(path, units="eV", require=())).pbc.tolist() == [True, True, False]
    path = made(tmp_path / "b.h5", cell=9 * np.eye(3), pbc=np.zeros((COUNT, 3), dtype=bool))
    assert not any(frame.pbc.any() for frame in read_frames(path, units="eV", require=()))
    path = made(tmp_path / "c.h5", pbc=[True, True, True])
    with pytest.raises(DataError, match="periodic along abc but no cell is given"):
        next(read_frames(path, units="eV", require=()))


def test_labels_that_mace_keeps_in_a_group_of_their_own_are_found(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for k in range(2):
            group = file.create_group(f"config_batch_0/config_{k}")
            group["atomic_numbers"], group["positions"] = [8, 1, 1], POSITIONS[k]
            group["cell"], group["pbc"], group["config_type"] = np.zeros((3, 3)), [False] * 3, "Default"
            group["properties/energy"], group["properties/forces"] = ENERGIES[k], FORCES[k]
            group["properties/stress"], group["properties/virials"] = "None", "None"
    frames = list(read_frames(tmp_path / "train.h5", units="eV"))
    assert [frame.energy for frame in frames] == ENERGIES[:2].tolist()
    assert frames[0].config_type == "Default"
    assert frames[0].stress is None
    np.testing.assert_array_equal(frames[1].forces, FORCES[1])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"energy": ENERGIES[:3]}, r"/water/energy: has shape \[3\], which does not give one row to 4 conf"),
        ({"atomic_numbers": [8, 1]}, r"atomic_numbers: of shape \[2\], where 4 conformations have 3 atoms"),
        ({"positions": POSITIONS[..., :2]}, r"must have shape \[conformations, atoms, 3\], got \[4, 3, 2\]"),
        ({"positions": [b"x"]}, "must have shape"),
        ({"atomic_numbers": [b"O", b"H", b"Xx"]}, "'Xx', which is no chemical element"),
        ({"energy": ENERGIES.astype("S4")}, "energy: holds .S4 where numbers are needed"),
        ({"cell": np.eye(2)}, r"/water/cell: must have shape \[3, 3\] or \[4, 3, 3\]"),
        ({"forces": FORCES[:, :2]}, "forces must have shape"),
        ({"positions": None}, "no group has both atomic numbers"),
    ],
)
def test_wrong_shapes_are_refused_by_name(tmp_path, data, complaint):
    path = made(tmp_path / "a.h5", **data)
    with pytest.raises(DataError, match=complaint) as caught:
        list(read_frames(path, units="eV", require=()))
    assert "a.h5" in str(caught.value)


def point_elsewhere(path, how):
    (path.parent / "secret.bin").write_bytes(POSITIONS.tobytes())
    with h5py.File(path.parent / "other.h5", "w") as other:
        other["positions"] = POSITIONS
    with h5py.File(path, "w") as file:
        file["atomic_numbers"] = [8, 1, 1]
        if how == "storage":
            size = (path.parent / "secret.bin").stat().st_size
            outside = [(str(path.parent / "secret.bin"), 0, size)]
            file.create_dataset("positions", POSITIONS.shape, "f8", external=outside)
        elif how == "link":
            file["positions"] = h5py.ExternalLink(str(path.parent / "other.h5"), "/positions")
        else:
            layout = h5py.VirtualLayout(POSITIONS.shape, "f8")
            layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "positions", POSITIONS.shape)
            file.create_virtual_dataset("positions", layout)


@pytest.mark.parametrize("how", ["storage", "link", "virtual"])
def test_nothing_outside_of_the_file_is_read(tmp_path, how):
    point_elsewhere(tmp_path / "a.h5", how)
    with pytest.raises(DataError, match=r"a\.h5.*in (another|other) files?, which (is|are) not read"):
        list(read_frames(tmp_path / "a.h5", units="eV", require=()))


def test_circles_and_depths_of_groups_end(tmp_path):
    path = made(tmp_path / "a.h5", energy=ENERGIES)
    with h5py.File(path, "r+") as file:
        file["water/again"] = file["/"]
        file["water/here"] = file["water"]
    assert len(list(read_frames(path, units="eV", require=()))) == COUNT
    with h5py.File(path, "r+") as file:
        file.create_group("/".join("x" * 40))
    with pytest.raises(DataError, match="groups lie deeper in each other than 20"):
        list(read_frames(path, units="eV", require=()))


def test_sizes_that_are_only_declared_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["atomic_numbers"] = [8, 1, 1]
        file.create_dataset("positions", (10**9, 3, 3), "f8", chunks=(1000, 3, 3))
    with pytest.raises(DataError, match="the data set /positions would take more than 64 MiB"):
        next(read_frames(path, units="eV", require=()))


def test_a_large_set_is_read_in_blocks(tmp_path, monkeypatch):
    """Rows that are not asked for are not read."""
    path = made(tmp_path / "a.h5", positions=np.tile(POSITIONS, (500, 1, 1)), energy=np.tile(ENERGIES, 500))
    monkeypatch.setattr("sdas.data.readers.hdf5_file.BLOCK_BYTES", 1 << 12)
    read = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: read.append((self.name, key)) or original(self, key)
    )
    frames = read_frames(path, units="eV", require=(), check_units=False)
    for _ in range(100):
        next(frames)
    assert max(key.stop for name, key in read if name == "/water/positions") <= 200
    assert len(list(frames)) == 4 * 500 - 100


def test_a_heap_that_leads_to_itself_is_refused(tmp_path):
    """HDF5's library goes through such a heap of text without an end."""
    path = made(tmp_path / "a.h5", {"energy": "eV", "positions": "Å"}, energy=ENERGIES)
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    content[first : first + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5: not a sound HDF5 file: a heap at byte \d+ is damaged"):
        list(read_frames(path, require=()))


def test_another_hdf5_file_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pictures"] = np.zeros((3, 4))
    assert detect_format(tmp_path / "a.h5") == "hdf5"
    with pytest.raises(DataError, match=r"a\.h5: no group has both atomic numbers .* first data sets are: pictures"):
        list(read_frames(tmp_path / "a.h5"))
