"""Energies do not change, and forces and stress turn along, when the system is turned, inverted, moved or reordered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
TURN = Rotation.random(rng=np.random.default_rng(3)).as_matrix()


def moved(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """Positions and cell vectors times an orthogonal matrix."""
    return Atoms(atoms.numbers, atoms.positions @ matrix.T, cell=atoms.cell.array @ matrix.T, pbc=atoms.pbc)


def assert_turns_along(physics, model, atoms, matrix):
    stress = bool(atoms.pbc.all())
    before, after = physics.evaluate(model, atoms, stress), physics.evaluate(model, moved(atoms, matrix), stress)
    np.testing.assert_allclose(after["energy"], before["energy"], **TIGHT)
    np.testing.assert_allclose(after["forces"], before["forces"] @ matrix.T, **TIGHT)
    if stress:
        np.testing.assert_allclose(after["stress"], matrix @ before["stress"] @ matrix.T, **TIGHT)


def test_rotation(physics, model, atoms):
    assert_turns_along(physics, model, atoms, TURN)


def test_inversion_where_parity_is_kept(physics, model, atoms):
    if model.config["parity"]:
        assert_turns_along(physics, model, atoms, -np.eye(3))
        assert_turns_along(physics, model, atoms, -TURN)


def test_a_model_without_parity_tells_mirror_images_apart(physics, make_model, systems):
    """Or the switch would do nothing: a chiral molecule and its image differ in energy."""
    atoms = systems["molecule"]
    e = physics.energies(make_model(parity=False), [atoms, moved(atoms, -np.eye(3))])
    assert abs(e[0] - e[1]) > 1e-6


def test_translation(physics, model, atoms):
    shifted = atoms.copy()
    shifted.positions += [3.7, -1.9, 0.6]
    before, after = physics.evaluate(model, atoms), physics.evaluate(model, shifted)
    np.testing.assert_allclose(after["energy"], before["energy"], **TIGHT)
    np.testing.assert_allclose(after["forces"], before["forces"], **TIGHT)


def test_no_net_force_and_no_net_torque(physics, model, atoms):
    forces = physics.evaluate(model, atoms)["forces"]
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-10)
    if not atoms.pbc.any():
        np.testing.assert_allclose(np.cross(atoms.positions, forces).sum(0), 0, atol=1e-10)


def test_permutation(physics, model, atoms):
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = physics.evaluate(model, atoms), physics.evaluate(model, atoms[order])
    np.testing.assert_allclose(after["energy"], before["energy"], **TIGHT)
    np.testing.assert_allclose(after["forces"], before["forces"][order], **TIGHT)


@pytest.mark.parametrize("name", ["small cell", "liquid"])
def test_moving_atoms_by_whole_cells_changes_nothing(physics, model, systems, name):
    atoms = systems[name]
    wrapped = atoms.copy()
    wrapped.positions += np.random.default_rng(2).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    before, after = physics.evaluate(model, atoms), physics.evaluate(model, wrapped)
    np.testing.assert_allclose(after["energy"], before["energy"], **TIGHT)
    np.testing.assert_allclose(after["forces"], before["forces"], **TIGHT)


def test_a_supercell_has_its_cells_energy_forces_and_stress(physics, model, systems):
    atoms = systems["small cell"]
    large = atoms.repeat((2, 1, 2))
    one, four = physics.evaluate(model, atoms, True), physics.evaluate(model, large, True)
    np.testing.assert_allclose(four["energy"], 4 * one["energy"], **TIGHT)
    np.testing.assert_allclose(four["forces"], np.tile(one["forces"], (4, 1)), **TIGHT)
    np.testing.assert_allclose(four["stress"], one["stress"], **TIGHT)


def test_float32_keeps_the_symmetry_to_its_precision(physics, make_model, systems):
    model, atoms = make_model(torch.float32), systems["molecule"]
    before, after = physics.evaluate(model, atoms), physics.evaluate(model, moved(atoms, TURN))
    np.testing.assert_allclose(after["forces"], before["forces"] @ TURN.T, atol=2e-4)
    np.testing.assert_allclose(after["forces"], physics.evaluate(make_model(), moved(atoms, TURN))["forces"], atol=2e-4)


@pytest.mark.parametrize("distance", [120.0, 12_000.0])
@pytest.mark.parametrize("name", ["molecule", "liquid", "small cell", "slab"])
def test_float32_forces_do_not_depend_on_the_distance_from_the_origin(physics, make_model, systems, name, distance):
    model, atoms = make_model(torch.float32), systems[name]
    shifted = atoms.copy()
    shifted.positions += distance * np.array([1.0, -0.6, 0.3])
    before, after = physics.evaluate(model, atoms), physics.evaluate(model, shifted)
    np.testing.assert_allclose(after["forces"], before["forces"], atol=1e-5 * max(1, np.abs(before["forces"]).max()))
