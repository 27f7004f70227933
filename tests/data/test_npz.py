"""MD17, rMD17 and sGDML files: units, keys, streaming, and every way in which a file can be wrong."""

import numpy as np
import pytest

from sdas.data import DataError, read_frames
from sdas.data.readers.npz_stream import NpzStream
from sdas.data.reading_notes import ReadingNotes
from sdas.data.units import KCAL_PER_MOL

RNG = np.random.default_rng(0)
CO2 = np.array([[0.0, 0, 0], [1.16, 0, 0], [-1.16, 0, 0]])
COORDS = CO2 + 0.05 * RNG.normal(size=(5, 3, 3))
ENERGIES = RNG.normal(size=5) - 1e4
FORCES = RNG.normal(size=(5, 3, 3))
RMD17 = {"nuclear_charges": np.array([6, 8, 8], np.uint8), "coords": COORDS, "energies": ENERGIES, "forces": FORCES}
SGDML = {"z": np.array([6, 8, 8]), "R": COORDS, "E": ENERGIES[:, None], "F": FORCES}


def save(path, arrays, compressed=True):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_rmd17_is_in_kcal_per_mol(tmp_path, compressed):
    path = save(tmp_path / "a.npz", RMD17, compressed)
    frames = list(read_frames(path))
    assert [frame.source for frame in frames] == [f"{path}: frame {i}" for i in range(5)]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.numbers, [6, 8, 8])
        np.testing.assert_array_equal(frame.positions, COORDS[i])
        np.testing.assert_array_equal(frame.forces, FORCES[i] * KCAL_PER_MOL)
        assert frame.energy == ENERGIES[i] * KCAL_PER_MOL
        assert frame.cell is None
        assert not frame.pbc.any()


def test_a_unit_that_only_the_format_tells_is_said(tmp_path):
    """A file of one's own with these names is in eV, perhaps."""
    path, notes = save(tmp_path / "a.npz", RMD17), ReadingNotes()
    list(read_frames(path, notes=notes))
    (said,) = notes.remarks
    assert said.startswith("units that the file does not name are those of its format, kcal/mol, Å; say others by")
    notes = ReadingNotes()
    list(read_frames(path, units="eV", notes=notes))
    assert not notes.remarks


def test_the_noisy_labels_of_the_original_are_read_only_by_name(tmp_path):
    old = {"old_energies": ENERGIES + 100, "old_forces": FORCES + 1, "old_indices": np.arange(5)}
    path = save(tmp_path / "a.npz", RMD17 | old)
    assert next(read_frames(path)).energy == ENERGIES[0] * KCAL_PER_MOL
    frame = next(read_frames(path, energy_key="old_energies", forces_key="old_forces", units="eV"))
    assert frame.energy == ENERGIES[0] + 100
    np.testing.assert_array_equal(frame.forces, FORCES[0] + 1)


def test_sgdml_without_units_is_refused_until_they_are_given(tmp_path):
    path = save(tmp_path / "a.npz", SGDML)
    with pytest.raises(DataError, match=r"does not say its units; give units='kcal/mol'"):
        next(read_frames(path))
    assert next(read_frames(path, units="kcal/mol")).energy == ENERGIES[0] * KCAL_PER_MOL
    assert next(read_frames(path, units="eV")).energy == ENERGIES[0]


def test_declared_units_of_sgdml_are_used_and_not_contradicted(tmp_path):
    path = save(tmp_path / "a.npz", SGDML | {"e_unit": "kcal/mol", "r_unit": "Ang"})
    assert next(read_frames(path)).energy == ENERGIES[0] * KCAL_PER_MOL
    assert next(read_frames(path, units="kcal/mol")).energy == ENERGIES[0] * KCAL_PER_MOL
    with pytest.raises(DataError, match=r"declares its units as kcal/mol, Ang, but units='eV, Å'"):
        next(read_frames(path, units="eV"))
    odd = save(tmp_path / "b.npz", SGDML | {"e_unit": "erg"})
    with pytest.raises(DataError, match="unknown unit of energy 'erg'"):
        next(read_frames(odd))


def test_cells_and_numbers_may_differ_from_frame_to_frame(tmp_path):
    numbers = np.array([[6, 8, 8]] * 4 + [[14, 8, 8]])
    cells = np.eye(3) * np.arange(8.0, 13.0)[:, None, None]
    path = save(tmp_path / "a.npz", SGDML | {"z": numbers, "unit_cell": cells})
    frames = list(read_frames(path, units="eV"))
    assert frames[4].numbers.tolist() == [14, 8, 8]
    np.testing.assert_array_equal(frames[4].cell, 12 * np.eye(3))
    assert frames[0].pbc.all()
    slab = save(tmp_path / "b.npz", SGDML | {"unit_cell": cells[0], "pbc": np.array([True, True, False])})
    assert next(read_frames(slab, units="eV")).pbc.tolist() == [True, True, False]


def test_a_lattice_whose_orientation_is_ambiguous_is_refused(tmp_path):
    cubic = save(tmp_path / "a.npz", SGDML | {"lattice": 9 * np.eye(3)})
    np.testing.assert_array_equal(next(read_frames(cubic, units="eV")).cell, 9 * np.eye(3))
    skew = save(tmp_path / "b.npz", SGDML | {"lattice": 9 * np.eye(3) + np.eye(3, k=1)})
    with pytest.raises(DataError, match="rows or the columns"):
        next(read_frames(skew, units="eV"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"coords": COORDS[:, :, :2]}, r"coords must have shape \[frames, atoms, 3\]"),
        ({"energies": ENERGIES[:4]}, "energies has shape .* to 5 frames"),
        ({"forces": FORCES[:4]}, "forces has shape .* to 5 frames"),
        ({"forces": FORCES[:, :2]}, "frame 0: forces must have shape"),
        ({"nuclear_charges": np.array([6, 8])}, "frame 0: positions must have shape"),
        ({"nuclear_charges": np.array([6.5, 8, 8])}, "atomic numbers must be integers"),
        ({"nuclear_charges": np.array([0, 8, 8])}, "frame 0: atom 0 has atomic number 0"),
        ({"coords": np.where(np.arange(5)[:, None, None] == 3, np.nan, COORDS)}, "frame 3: positions hold NaN"),
        ({"energies": np.where(np.arange(5) == 2, np.nan, ENERGIES)}, "frame 2: energy is nan"),
        ({"coords": np.empty((0, 3, 3)), "energies": np.empty(0), "forces": np.empty((0, 3, 3))}, "holds no frames"),
        ({"energies": np.array([None] * 5)}, "holds pickled objects"),
        ({"energies": ENERGIES.astype(str)}, "the energy must be one number"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, change, complaint):
    path = save(tmp_path / "a.npz", RMD17 | change)
    with pytest.raises(DataError, match=complaint):
        list(read_frames(path))


def test_missing_labels_are_errors_where_required(tmp_path):
    path = save(tmp_path / "a.npz", {k: v for k, v in RMD17.items() if k != "forces"})
    with pytest.raises(DataError, match="frame 0: no forces"):
        next(read_frames(path))
    assert next(read_frames(path, require=("energy",))).forces is None
    with pytest.raises(DataError, match="no array 'gradients'"):
        next(read_frames(path, forces_key="gradients"))


def test_damaged_archives_are_refused(tmp_path):
    path = save(tmp_path / "a.npz", RMD17)
    whole = path.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}.items():
        bad = tmp_path / f"{name}.npz"
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"not a complete \.npz file|is empty"):
            list(read_frames(bad))
    middle = whole.index(b"coords.npy") + 400
    flipped = tmp_path / "flipped.npz"
    flipped.write_bytes(whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 9]) + whole[middle + 9 :])
    with pytest.raises(DataError, match="array 'coords'"):
        list(read_frames(flipped, check_units=False))


def test_an_archive_of_no_known_convention_says_what_is_known(tmp_path):
    path = save(tmp_path / "a.npz", {"x": np.zeros(3)})
    with pytest.raises(DataError, match="no known convention; known formats: rmd17"):
        read_frames(path)
    with pytest.raises(DataError, match="no array R nor z"):
        next(read_frames(path, "sgdml", units="eV"))


def test_rows_stream_one_at_a_time_in_any_memory_order(tmp_path):
    path = save(tmp_path / "a.npz", {"c": COORDS, "fortran": np.asfortranarray(COORDS), "old": COORDS.astype(">f8")})
    with NpzStream(path) as data:
        for name in ("c", "fortran", "old"):
            np.testing.assert_array_equal(np.array(list(data.rows(name)), dtype=np.float64), COORDS)
            assert data.shape(name) == (5, 3, 3)
