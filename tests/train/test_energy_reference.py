"""Energies of elements and the unit of learning are those that made the frames, or what is known of them is said."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from sdas.config import load_config
from sdas.data import DataError, Frame, write_cache
from sdas.data.isolated_atoms import isolated_atoms, isolated_energies, structures
from sdas.data.splits import PARTS, composition_split, given_split, random_split
from sdas.errors import ConfigError, TrainingError
from sdas.train.energy_reference import energy_reference, fit_energy_reference, given_energies, given_energy_reference
from sdas.train.loop import train


def as_atoms(one):
    atoms = Atoms(one.numbers, one.positions, cell=one.cell, pbc=one.pbc)
    atoms.calc = SinglePointCalculator(atoms, energy=one.energy, forces=one.forces)
    atoms.info |= {"config_type": one.config_type} if one.config_type else {}
    return atoms


def frame(numbers, energy, force=1.0, pbc=False, **marks):
    z = np.array(numbers, dtype=np.int64)
    positions = np.arange(3.0 * len(z)).reshape(-1, 3)
    forces = None if force is None else np.full((len(z), 3), force)
    cell = 20.0 * np.eye(3) if pbc else None
    return Frame(z, positions, cell, np.full(3, pbc), energy, forces, None, "made", **marks)


HYDROGEN = frame([1], -13.5, force=0.0, pbc=True, config_type="IsolatedAtom")
OXYGEN = frame([8], -2040.0, force=0.0)
WATER = [frame([8, 1, 1], -2077.0 - 0.1 * k) for k in range(3)]


def test_the_fit_finds_the_energies_that_made_the_frames():
    frames = [frame(z, -2.0 * z.count(1) - 30.0 * z.count(8)) for z in ([1, 1, 8], [1, 8], [8, 8], [1, 1])]
    reference = fit_energy_reference(frames, [1, 8])
    assert reference.shifts == pytest.approx({1: -2.0, 8: -30.0})
    assert (reference.undetermined, reference.energy_rms) == ((), 0.0)
    assert reference.force_rms == reference.unit == pytest.approx(1.0)


def test_the_fit_is_exact_for_89_elements_of_which_many_are_rare():
    """Energies of all-electron size; 30 elements occur in one frame each, as one atom among up to 200."""
    rng = np.random.default_rng(0)
    shifts = {z: -10.0 * z**2.3 for z in range(1, 90)}
    frames = [rng.integers(1, 60, size=rng.integers(2, 200)).tolist() for _ in range(300)]
    for index, rare in enumerate(range(60, 90)):
        frames[index][0] = rare
    frames = [frame(numbers, sum(shifts[z] for z in numbers)) for numbers in frames]
    reference = fit_energy_reference(frames, shifts)
    assert reference.undetermined == ()
    assert [reference.shifts[z] for z in shifts] == pytest.approx(list(shifts.values()), rel=1e-9)


def test_a_large_cell_counts_as_much_as_a_small_one():
    """Least squares of energies per atom, by the normal equations of two elements in float64."""
    rng = np.random.default_rng(1)
    cells = [[1] * a + [8] * b for a, b in ((1, 1), (40, 20), (3, 1), (2, 7), (90, 90), (1, 5))]
    energies = [len(z) * (-7.0 + rng.normal()) for z in cells]
    a = np.array([[z.count(1) / len(z), z.count(8) / len(z)] for z in cells])
    e = np.array([energy / len(z) for energy, z in zip(energies, cells, strict=True)])
    expected = np.linalg.solve(a.T @ a, a.T @ e)
    rest = e - a @ expected
    reference = fit_energy_reference(map(frame, cells, energies), [1, 8])
    assert [reference.shifts[1], reference.shifts[8]] == pytest.approx(expected.tolist())
    assert reference.energy_mean == pytest.approx(rest.mean())
    assert reference.energy_rms == pytest.approx(rest.std())


def test_what_compositions_leave_open_is_nearest_to_the_mean_energy_per_atom():
    one = fit_energy_reference([frame([1, 1, 8], -50.0), frame([8, 1, 1], -49.0)], [1, 8, 9])
    assert one.shifts == pytest.approx({1: -16.5, 8: -16.5, 9: -16.5})
    assert one.undetermined == (1, 8)
    # C is alone in the second frame, so only H and O are open: they share what is left
    two = fit_energy_reference([frame([1, 1, 8], -60.0), frame([6, 6], -80.0)], [1, 6, 8])
    assert (two.shifts[6], two.undetermined) == (pytest.approx(-40.0), (1, 8))
    assert 2 * two.shifts[1] + two.shifts[8] == pytest.approx(-60.0)
    mean = -30.0
    away = [two.shifts[1] - mean, two.shifts[8] - mean]
    assert np.cross([*away, 0], [2, 1, 0]).tolist() == pytest.approx([0, 0, 0])  # nothing along the open direction


def test_without_forces_energies_per_atom_give_the_unit():
    """Cells of one atom by symmetry have zero forces."""
    energies = [-5.0, -5.2, -5.4]
    zero = fit_energy_reference([frame([14], energy, force=0.0) for energy in energies], [14])
    none = fit_energy_reference([frame([14], energy, force=None) for energy in energies], [14])
    assert (zero.force_rms, none.force_rms) == (None, None)
    assert zero.unit == none.unit == pytest.approx(np.std(energies))


def test_compositions_that_spread_as_much_as_the_forces_give_energies_a_unit_of_their_own():
    """Of ten times their spread, by the mean of each; what spreads within a composition keeps the unit of forces."""
    energies = {(3,): -5.0, (3, 4): -6.0, (4,): -3.0, (4, 4): -5.0}
    many = fit_energy_reference([frame(z, len(z) * e + d) for z, e in energies.items() for d in (-0.1, 0.1)], [3, 4])
    rows = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 1]])
    means = np.array(list(energies.values()))
    rest = means - rows @ np.linalg.solve(rows.T @ rows, rows.T @ means)
    assert many.composition_rms == pytest.approx(rest.std())
    assert (many.unit, many.energy_unit) == (1.0, pytest.approx(10 * rest.std()))
    one = fit_energy_reference([frame([3], -5.0), frame([3], -9.0)], [3])
    assert (one.energy_rms, one.composition_rms, one.energy_unit) == (2.0, 0.0, 1.0)
    alone = fit_energy_reference([frame(z, e, force=0.0) for z, e in (([3], -5.0), ([3, 3], -14.0))], [3])
    assert alone.unit == alone.energy_unit == pytest.approx(1.0)


def test_frames_without_energies_leave_the_shifts_at_zero():
    reference = fit_energy_reference([frame([1, 8], None, force=2.0)], [1, 8])
    assert (reference.shifts, reference.energy_rms, reference.unit) == ({1: 0.0, 8: 0.0}, None, pytest.approx(2.0))


def test_given_energies_leave_the_binding_energy_to_be_learnt():
    frames = [frame([1, 1], -31.0), frame([1, 8], -88.0)]
    reference = given_energy_reference(frames, [1, 8], {1: -13.0, 8: -70.0, 9: -99.0}, "here")
    assert reference.shifts == {1: -13.0, 8: -70.0}
    assert (reference.energy_mean, reference.energy_rms) == (pytest.approx(-2.5), 0.0)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(TrainingError, match=r"atomic numbers \[8\] are not in model.species \[1\]"):
        fit_energy_reference([frame([1, 8], -1.0)], [1])
    with pytest.raises(TrainingError, match="no scale to learn by"):
        _ = fit_energy_reference([frame([1, 1], -1.0, force=0.0)], [1]).unit
    with pytest.raises(TrainingError, match=r"refs.json: no energy of O, which"):
        given_energy_reference([frame([1, 8], -1.0)], [1, 8], {1: -13.0}, "refs.json")


def test_an_isolated_atom_is_one_atom_that_is_named_so_or_in_open_space(tmp_path):
    others = [
        frame([14], -5.0, pbc=True),  # a cell of one atom
        frame([14], -5.0, pbc=True, config_type="bulk"),
        frame([14], -5.0, config_type="ion"),
        frame([1, 1], -30.0, config_type="IsolatedAtom"),
    ]
    named = [
        frame([1], -13.5, pbc=True, config_type=name) for name in ("isolated_atom", "isolated atoms", "ISOLATEDATOM")
    ]
    frames = [*WATER, HYDROGEN, *others, OXYGEN, *named]
    for sequence in (frames, write_cache(frames, tmp_path / "cache")):
        assert isolated_atoms(sequence).tolist() == [3, 8, 9, 10, 11]
        assert structures(sequence).tolist() == [0, 1, 2, 4, 5, 6, 7]
        assert isolated_energies(sequence) == ({1: -13.5, 8: -2040.0}, {})


def test_isolated_atoms_that_disagree_or_have_no_energy_are_refused():
    with pytest.raises(DataError, match=r"isolated atoms of H with -13\.500000 and -13\.600000 eV"):
        isolated_energies([HYDROGEN, frame([1], -13.6)])
    assert isolated_energies([HYDROGEN, frame([1], -13.5005, spin=2.0)]) == ({1: -13.5}, {})
    assert isolated_energies([frame([1], 0.0, charge=1.0), frame([1], -13.5, spin=2.0)]) == ({1: -13.5}, {1: 2.0})
    with pytest.raises(DataError, match="isolated atom without an energy"):
        isolated_energies([frame([1], None)])


FIT = "a fit to 3 training frames"


@pytest.mark.parametrize(
    ("setting", "atoms", "shifts", "origin"),
    [
        ("auto", [HYDROGEN, OXYGEN], (-13.5, -2040.0), "2 isolated atoms"),
        ("isolated", [HYDROGEN, OXYGEN], (-13.5, -2040.0), "2 isolated atoms"),
        (
            "auto",
            [OXYGEN],
            (-692.3667, -692.3667),
            f"{FIT}, for there are isolated atoms of O only",
        ),
        ("auto", [], (-692.3667, -692.3667), FIT),
        ("fit", [HYDROGEN, OXYGEN], (-692.3667, -692.3667), FIT),
        ({"H": -13.0, 8: -2041.0, "C": -1000.0}, [HYDROGEN], (-13.0, -2041.0), "train.energy_reference"),
    ],
)
def test_the_setting_says_where_energies_come_from(setting, atoms, shifts, origin):
    reference = energy_reference(setting, [*WATER, *atoms], np.arange(3), [1, 8])
    assert list(reference.shifts.values()) == pytest.approx(shifts, abs=1e-4)
    assert reference.origin == origin
    exact = "" if "fit" in origin else ", which the model gives exactly to atoms alone"
    assert reference.lines()[0] == f"energies of H, O: from {origin}{exact}"
    assert len(reference.lines()) == (2 if "fit" in origin else 1)  # water alone does not tell H from O


def test_isolated_atoms_that_are_asked_for_must_be_there():
    with pytest.raises(TrainingError, match="no frame is an isolated atom of H: add one"):
        energy_reference("isolated", [*WATER, OXYGEN], np.arange(3), [1, 8])


def test_a_file_of_json_or_yaml_gives_energies(tmp_path):
    for name, text in (("e.json", '{"H": -13.6, "8": -2041}'), ("e.yaml", "H: -13.6\n8: -2041\n")):
        (tmp_path / name).write_text(text)
        setting = load_config(None, ["data.path=x", "train.steps=1", f"train.energy_reference={tmp_path / name}"])
        energies, where = given_energies(setting.train.energy_reference)
        assert (energies, where) == ({1: -13.6, 8: -2041.0}, str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must map elements to energies in eV"),
        ("Xx: 1", "'Xx' is no element"),
        ("No: 1", 'False is no element; give symbols in quotes, as "No"'),
        ("119: 1", "119 is no element"),
        ("H: low", "the energy of H must be a number in eV, got 'low'"),
        ("H: .inf", "the energy of H must be a number in eV"),
        ("{H: 1, 1: 2}", "two energies of H"),
        ("{", "neither JSON nor YAML"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        given_energies(str(tmp_path / "e.yaml"))


def test_a_word_that_is_no_setting_is_taken_for_a_file_and_said_to_be_missing():
    with pytest.raises(ConfigError, match="No such file or directory; it may be auto, fit, isolated, a mapping"):
        given_energies("average")


def test_a_run_takes_its_energies_from_isolated_atoms_and_trains_on_the_rest(tmp_path, make_config, molecules, capsys):
    """They may lie in the file of any part, and are in no part."""
    for name, frames in (("t", molecules(20)), ("v", [HYDROGEN, *molecules(4, 1)]), ("s", [*molecules(4, 2), OXYGEN])):
        ase.io.write(tmp_path / f"{name}.extxyz", [as_atoms(one) for one in frames])
    files = {"path": "t.extxyz", "validation": "v.extxyz", "test": "s.extxyz"}
    files = {key: str(tmp_path / name) for key, name in files.items()}
    result = train(make_config(data={**files, "split": {"sizes": [20, 0, 0]}}, steps=2, validate_every=2))
    said = capsys.readouterr().err
    assert "energies of H, O: from 2 isolated atoms, which the model gives exactly to atoms alone\n" in said
    assert "frames: 20 train, 4 validation, 4 test, 2 isolated atoms in none of them (" in said
    summary = result.summary
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == (20, 4, 4)
    assert summary["energy_reference"]["shifts_ev"] == {"H": -13.5, "O": -2040.0}


def test_no_way_of_splitting_gives_an_isolated_atom_to_a_part(tmp_path, molecules):
    cache = write_cache([OXYGEN, *molecules(8), HYDROGEN], tmp_path / "cache")
    (tmp_path / "i.json").write_text('{"train": [0, 1, 2, 3, 4, 5], "validation": [6, 7, 9], "test": [8]}')
    given = given_split(cache, tmp_path / "i.json")
    assert [getattr(given, part).tolist() for part in PARTS] == [[1, 2, 3, 4, 5], [6, 7], [8]]
    for split in (random_split(cache, (5, 2, 1), 0), composition_split(cache, (5, 2, 1), 0)):
        assert sorted(np.concatenate([getattr(split, part) for part in PARTS])) == list(range(1, 9))
    with pytest.raises(DataError, match="there are 8 to divide"):
        random_split(cache, (9, 0, 0), 0)
