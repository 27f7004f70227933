"""Constraints of the start hold in dynamics, count in the temperature, and outlive a resume; others are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixScaled,
    FixSubsetCom,
    FixSymmetry,
    Hookean,
    dict2constraint,
)
from ase.io import read, write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.errors import SdasError
from sdas.md import MDSettings, SDASCalculator, simulate
from sdas.md.constraints import conserves_momentum, constraints_of, degrees_of_freedom
from sdas.md.folder import SUMMARY, TRAJECTORY, read_log
from sdas.md.velocities import draw_velocities, stop_drift
from sdas.run.checkpoint import save_model


@pytest.fixture
def slab() -> Atoms:
    """Two skewed layers of four atoms, free along z, near the minimum of the pair potential."""
    layer = np.array([[0.0, 0, 0], [1.22, 0.03, 0.05], [0.02, 1.19, 0], [1.2, 1.23, -0.04]])
    positions = np.concatenate([layer, layer + np.array([0.05, 0.02, 1.21])])
    return Atoms("O8", positions, cell=[[2.42, 0.1, 0], [0.2, 2.43, 0], [0, 0, 12]], pbc=[True, True, False])


def run(potential, atoms, folder, **settings):
    settings = {"steps": 30, "sample_every": 3, "save_every": 10, "timestep_fs": 0.25, **settings}
    return simulate(atoms, SDASCalculator(potential), MDSettings(**settings), folder)


def moves(folder, start):
    """Largest displacement of each component `[n, 3]` over a trajectory; it holds eight decimals."""
    return np.max([np.abs(frame.positions - start.positions) for frame in read(folder / TRAJECTORY, index=":")], axis=0)


BELOW = [0, 1, 2, 3]
HOLDS = {
    "atoms": ([FixAtoms(BELOW)], dict.fromkeys(BELOW, "xyz"), 12),
    "components": ([FixCartesian([0, 1], mask=(False, False, True))], {0: "z", 1: "z"}, 2),
    "overlapping": ([FixAtoms([0, 1]), FixCartesian([1, 2], (True, False, True))], {0: "xyz", 1: "xyz", 2: "xz"}, 8),
    "one per atom": ([FixCartesian(i, (i == 2, False, True)) for i in range(4)], {0: "z", 1: "z", 2: "xz", 3: "z"}, 5),
    "plane": ([FixedPlane([5], (0, 0, 1))], {5: "z"}, 1),
    "line": ([FixedLine([-1], (0, 1, 0))], {7: "xz"}, 2),
    "scaled": ([FixScaled([0, 4]), FixScaled([6], mask=(False, False, True))], {0: "xyz", 4: "xyz", 6: "z"}, 7),
}


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
@pytest.mark.parametrize("name", HOLDS)
def test_what_is_fixed_moves_exactly_nowhere_and_the_rest_moves(pair_potential, slab, tmp_path, name, ensemble):
    constraints, fixed, _ = HOLDS[name]
    slab.set_constraint(constraints)
    run(pair_potential, slab, tmp_path, ensemble=ensemble)
    moved = moves(tmp_path, slab)
    held = np.zeros_like(moved, dtype=bool)
    for atom, axes in fixed.items():
        held[atom, ["xyz".index(axis) for axis in axes]] = True
    state = np.load(tmp_path / "state.npz")
    assert (state["positions"][held] == slab.positions[held]).all()
    assert (state["momenta"][held] == 0).all()
    assert moved[held].max() < 1e-8
    assert moved[~held].min() > 1e-3


@pytest.mark.parametrize("name", HOLDS)
@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_fixed_components_are_no_degrees_of_freedom(slab, name, ensemble):
    constraints, _, removed = HOLDS[name]
    slab.set_constraint(constraints)
    slab.set_constraint(constraints_of(slab))
    assert degrees_of_freedom(slab, ensemble == "nve") == 24 - removed


def test_atoms_keep_to_oblique_lines_and_planes(pair_potential, slab, tmp_path):
    """A scaled direction in a skewed cell is one: what is left free are vectors of the cell."""
    a, b = slab.cell[0], slab.cell[1]
    slab.cell[2] = [1.5, 0.7, 12]
    c = slab.cell[2]
    slab.set_constraint(
        [
            FixedLine([0], (1, 1, 0)),
            FixedPlane([1], (1, 2, 3)),
            FixScaled([2], mask=(True, True, False)),
            FixScaled([3], mask=(True, False, False)),
        ]
    )
    run(pair_potential, slab, tmp_path)
    step = np.load(tmp_path / "state.npz")["positions"] - slab.positions
    assert np.linalg.norm(step, axis=1).min() > 1e-3
    across = (np.cross(step[0], [1, 1, 0]), step[1] @ [1, 2, 3], np.cross(step[2], c), step[3] @ np.cross(b, c))
    assert all(np.abs(part).max() < 1e-10 for part in across)
    assert abs(step[3] @ np.cross(a, c)) > 1e-3
    assert json.loads((tmp_path / SUMMARY).read_text())["degrees_of_freedom"] == 24 - 2 - 1 - 2 - 1


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_bonds_keep_their_lengths_and_the_energy_is_kept(pair_potential, tmp_path, ensemble):
    atoms = Atoms("O4", [[0, 0, 0], [1.25, 0.1, 0], [0.5, 1.05, 0.15], [1.7, 1.2, 0.3]])
    atoms.set_masses([1.0, 16.0, 16.0, 4.0])
    atoms.set_constraint([FixBondLengths([[0, 1]]), FixBondLengths([[1, 2]])])
    before = [atoms.get_distance(0, 1), atoms.get_distance(1, 2)]
    result = run(pair_potential, atoms, tmp_path, ensemble=ensemble, steps=200, timestep_fs=0.25)
    last = atoms.copy()
    last.positions = np.load(tmp_path / "state.npz")["positions"]
    assert [last.get_distance(0, 1), last.get_distance(1, 2)] == pytest.approx(before, abs=1e-10)
    assert abs(last.get_distance(0, 2) - atoms.get_distance(0, 2)) > 1e-3
    freedom = json.loads((tmp_path / SUMMARY).read_text())["degrees_of_freedom"]
    assert freedom == 12 - 2 - (6 if ensemble == "nve" else 0)
    if ensemble == "nve":
        log = read_log(tmp_path)
        assert np.ptp(log["total_ev"]) < 0.01 * np.ptp(log["kinetic_ev"])
        assert result.drift is not None


def test_the_center_of_mass_stays_under_a_thermostat(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path / "free", ensemble="nvt")
    molecule.set_constraint(FixCom())
    run(pair_potential, molecule, tmp_path / "fixed", ensemble="nvt")
    centers = [[f.get_center_of_mass() for f in read(tmp_path / n / TRAJECTORY, ":")] for n in ("free", "fixed")]
    assert np.ptp(centers[0], axis=0).max() > 1e-3
    assert np.ptp(centers[1], axis=0).max() < 1e-7
    assert json.loads((tmp_path / "fixed" / SUMMARY).read_text())["degrees_of_freedom"] == 6


def test_the_center_of_mass_is_not_taken_off_twice(molecule):
    free = degrees_of_freedom(molecule, momentum_kept=True)
    molecule.set_constraint([FixCom(), FixCom()])
    molecule.set_constraint(constraints_of(molecule))
    assert degrees_of_freedom(molecule, momentum_kept=True) == free == 3


@pytest.mark.parametrize(
    "constraints",
    [[FixAtoms(BELOW)], [FixCartesian([0, 1, 2], (True, False, True))], [FixBondLengths([[0, 4], [1, 5], [2, 6]])]],
)
@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_velocities_have_the_temperature_over_what_is_free(slab, constraints, ensemble):
    slab.set_constraint(constraints)
    slab.set_constraint(constraints_of(slab))
    kinetic, generator = [], np.random.Generator(np.random.PCG64(0))
    for _ in range(600):
        draw_velocities(slab, 400.0, generator)
        stop_drift(slab)
        kinetic.append(slab.get_kinetic_energy())
    drift = 3 if ensemble == "nvt" and conserves_momentum(slab) else 0  # taken off the start, excited later
    freedom = degrees_of_freedom(slab, ensemble == "nve") - drift
    assert 2 * np.mean(kinetic) / (freedom * units.kB) == pytest.approx(400, rel=0.02)


def test_the_thermostat_holds_the_temperature_of_what_is_free(pair_potential, slab, tmp_path):
    slab.set_constraint(FixAtoms(BELOW))
    settings = {"steps": 700, "timestep_fs": 1.0, "temperature_k": 500.0, "friction_per_ps": 100.0, "ensemble": "nvt"}
    run(pair_potential, slab, tmp_path, save_every=5000, **settings)
    assert read_log(tmp_path)["temperature_k"][50:].mean() == pytest.approx(500, rel=0.15)


def constrained(slab):
    slab.set_constraint([FixAtoms([0]), FixCartesian([1], (False, True, True)), FixBondLengths([[4, 5], [5, 6]])])
    return slab


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_a_resumed_run_keeps_its_constraints_to_the_bit(pair_potential, slab, tmp_path, ensemble):
    constrained(slab)
    run(pair_potential, slab, tmp_path / "once", ensemble=ensemble)
    for steps in (11, 24, 30):
        run(pair_potential, slab, tmp_path / "often", ensemble=ensemble, steps=steps)
    for name in (TRAJECTORY, "log.csv"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "often" / name).read_bytes()
    once, often = (np.load(tmp_path / name / "state.npz") for name in ("once", "often"))
    assert (once["positions"] == often["positions"]).all()


def test_a_run_is_not_continued_with_other_constraints(pair_potential, slab, tmp_path):
    slab.set_constraint(FixAtoms([0, 1]))
    run(pair_potential, slab, tmp_path, steps=3)
    slab.set_constraint()
    with pytest.raises(SdasError, match=r'constraints \[{"name": "FixAtoms".*\[0, 1\]}}\], not \[\]'):
        run(pair_potential, slab, tmp_path)


def test_the_trajectory_carries_the_constraints(pair_potential, slab, tmp_path):
    constrained(slab)
    run(pair_potential, slab, tmp_path, steps=3)
    frame = read(tmp_path / TRAJECTORY)
    by_mask = np.zeros((8, 3), dtype=bool)
    for constraint in frame.constraints:
        by_mask[constraint.index] |= getattr(constraint, "mask", True)
    assert np.argwhere(by_mask).tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2]]
    others = [dict2constraint(description) for description in frame.info["constraints"]]
    assert [type(constraint) for constraint in others] == [FixBondLengths]
    assert others[0].pairs.tolist() == [[4, 5], [5, 6]]


def test_a_frame_of_the_trajectory_starts_a_run_with_the_same_constraints(pair_potential, slab, tmp_path):
    slab.set_constraint([FixAtoms([0]), FixCartesian([1], (False, True, True))])
    run(pair_potential, slab, tmp_path / "a", steps=3)
    again = read(tmp_path / "a" / TRAJECTORY)
    run(pair_potential, again, tmp_path / "b", steps=3)
    stored = [json.loads((tmp_path / name / SUMMARY).read_text())["constraints"] for name in "ab"]
    assert stored[0] == stored[1] != []


class OwnConstraint(FixConstraint):
    """As a user may write one."""

    def todict(self):
        return {"name": "OwnConstraint", "kwargs": {}}


class BetterFixAtoms(FixAtoms):
    """One that may do anything."""


@pytest.mark.parametrize(
    "constraint",
    [
        Hookean(0, 1, 5.0, 1.0),
        FixInternals(bonds=[[None, [0, 1]]]),
        FixSubsetCom([0, 1]),
        OwnConstraint(),
        BetterFixAtoms([0]),
    ],
    ids=lambda constraint: type(constraint).__name__,
)
def test_what_cannot_be_kept_is_refused_by_name(pair_potential, slab, tmp_path, constraint):
    slab.set_constraint([FixAtoms([7]), constraint])
    with pytest.raises(SdasError, match=f"cannot keep the constraint {type(constraint).__name__}.*it keeps FixAtoms"):
        run(pair_potential, slab, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_symmetry_is_refused_by_name(pair_potential, slab, tmp_path):
    slab.set_constraint(FixSymmetry.__new__(FixSymmetry))
    with pytest.raises(SdasError, match="cannot keep the constraint FixSymmetry"):
        run(pair_potential, slab, tmp_path / "run")


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ([FixAtoms([0]), FixBondLengths([[0, 1]])], "atom 0 is held by FixAtoms and FixBondLengths"),
        ([FixedLine([2], (1, 1, 0)), FixAtoms([2])], "atom 2 is held by FixedLine and FixAtoms"),
        ([FixedLine([2], (1, 1, 0)), FixedPlane([2], (1, 1, 1))], "atom 2 is held by FixedLine and FixedPlane"),
        ([FixCom(), FixAtoms([3])], "FixCom moves all atoms, .* with FixAtoms"),
        ([FixBondLengths([[0, 1], [1, 0]])], r"2 bonds among atoms \[0, 1\], of which only 1 are independent"),
        ([FixBondLengths([[2, 2]])], "bond of atom 2 with itself"),
        ([FixBondLengths([[0, 1]], bondlengths=[1.5])], "asks for 1.500000 Å between atoms 0 and 1"),
        ([FixAtoms([8])], "FixAtoms names atom 8; there are 8 atoms"),
        ([FixAtoms(list(range(8)))], "leave nothing that can move"),
    ],
)
def test_constraints_that_would_break_each_other_are_refused(pair_potential, slab, tmp_path, constraints, words):
    slab.set_constraint(constraints)
    with pytest.raises(SdasError, match=words):
        run(pair_potential, slab, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bonds_of_a_straight_line_follow_from_each_other(pair_potential, tmp_path):
    straight = Atoms("O3", [[0, 0, 0], [1.2, 0, 0], [2.4, 0, 0]])
    straight.set_constraint(FixBondLengths([[0, 1], [1, 2], [0, 2]]))
    with pytest.raises(SdasError, match=r"3 bonds .* only 2 are independent"):
        run(pair_potential, straight, tmp_path / "run")


def test_the_command_keeps_what_a_structure_file_says(make_model, tmp_path):
    save_model(tmp_path / "run" / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    water = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[8, 8, 8], pbc=True)
    water.set_constraint(FixAtoms([0]))
    for name in ("water.traj", "water.extxyz", "POSCAR"):
        write(tmp_path / name, water)
        out = tmp_path / f"out-{name}"
        words = ["md", tmp_path / "run", "--structure", tmp_path / name, "--steps", "9", "--every", "3", "--out", out]
        result = CliRunner().invoke(app, ["--debug", *map(str, words)])
        assert result.exit_code == 0, result.output
        moved = moves(out, read(tmp_path / name))
        assert (moved[0] < 1e-8).all()
        assert (moved[1:] > 0).all()
        assert json.loads((out / SUMMARY).read_text())["degrees_of_freedom"] == 6
