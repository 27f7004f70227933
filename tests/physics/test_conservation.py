"""Forces and stress are the exact derivatives of the energy, and the Hessian is that of the forces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdas_kernels import dispatch
from sdas_kernels.graph import NeighborGraph


def displaced(atoms, atom, axis, s):
    copy = atoms.copy()
    copy.positions[atom, axis] += s
    return copy


def strained(atoms, strain):
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=False)
    copy.positions = atoms.positions @ (np.eye(3) + strain)
    return copy


def test_forces_are_minus_the_slope_of_the_energy(physics, model, atoms):
    """Every coordinate of the small systems, nine of the liquid's."""
    forces = physics.evaluate(model, atoms)["forces"]
    assert np.abs(forces).max() > 1e-3 or physics.graph_of(model, atoms).num_edges == 0
    for atom in range(min(len(atoms), 9))[:: 3 if len(atoms) > 9 else 1]:
        for axis in range(3):
            slope = physics.slope(model, lambda s, a=atom, x=axis: displaced(atoms, a, x, s))
            assert slope == pytest.approx(-forces[atom, axis], abs=1e-7)


@pytest.mark.parametrize("name", ["liquid", "small cell"])
def test_stress_is_the_slope_of_the_energy_by_strain(physics, model, systems, name):
    atoms = systems[name]
    stress = physics.evaluate(model, atoms, stress=True)["stress"]
    np.testing.assert_array_equal(stress, stress.T)
    assert np.abs(stress).max() > 1e-5
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        slope = physics.slope(model, lambda s, strain=strain: strained(atoms, s * strain), 2e-5)
        assert slope / atoms.get_volume() == pytest.approx(stress[a, b], abs=1e-7)


def test_stress_does_not_feel_rotations_of_the_frame(physics, make_model, systems):
    """The antisymmetric part of a strain turns the system, which costs nothing."""
    atoms = systems["small cell"]
    turn = np.array([[0, 1.0, 0], [-1.0, 0, 0], [0, 0, 0]])
    assert physics.slope(make_model(), lambda s: strained(atoms, s * turn), 2e-5) == pytest.approx(0, abs=1e-7)


def test_stress_comes_with_the_same_forces(physics, model, systems):
    atoms = systems["small cell"]
    plain, with_stress = (physics.evaluate(model, atoms, stress) for stress in (False, True))
    np.testing.assert_allclose(with_stress["forces"], plain["forces"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(with_stress["energy"], plain["energy"], rtol=1e-14)


@pytest.mark.parametrize("name", ["molecule", "small cell", "slab"])
def test_hessian_is_symmetric_and_the_slope_of_the_forces(physics, model, systems, name):
    """A symmetric Jacobian of the force field is its curl being zero."""
    atoms = systems[name]
    hessian = physics.hessian(model, atoms)
    np.testing.assert_allclose(hessian, hessian.T, rtol=0, atol=1e-10 * np.abs(hessian).max())
    step = 1e-3
    for atom, axis in ((0, 0), (1, 2)):
        f = [physics.evaluate(model, displaced(atoms, atom, axis, k * step))["forces"].ravel() for k in (-2, -1, 1, 2)]
        slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        np.testing.assert_allclose(hessian[3 * atom + axis], -slope, rtol=0, atol=1e-6 * max(1, np.abs(hessian).max()))


def test_systems_without_neighbors_feel_nothing(physics, model, systems):
    """No force, and the energy of isolated atoms whatever their places."""
    atoms = systems["no edges"]
    found = physics.evaluate(model, atoms)
    assert (found["forces"] == 0).all()
    alone = physics.energies(model, [atoms[[k]] for k in range(len(atoms))])
    assert found["energy"] == pytest.approx(alone.sum(), rel=1e-13)


def force_loss(model, batch, targets):
    found = model(batch, stress=True)
    by_label = (found["forces"] - targets, found["energy"], 10 * found["stress"])
    return sum(difference.square().sum() for difference in by_label)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_a_force_loss_has_the_gradient_of_finite_differences(physics, model, systems, backend):
    """By every parameter tensor, along a random direction: training by forces sees the true second derivatives."""
    model.train()
    graphs = [physics.graph_of(model, systems[name]) for name in ("small cell", "slab")]
    batch = NeighborGraph.batch(graphs)
    targets = torch.randn_like(batch.positions)
    with dispatch.use_backend(backend) if backend else torch.enable_grad():
        parameters = dict(model.named_parameters())
        loss = force_loss(model, batch, targets)
        grads = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        for (name, p), grad in zip(parameters.items(), grads, strict=True):
            direction = torch.randn_like(p)
            direction /= direction.norm()
            losses, start, step = [], p.detach().clone(), 1e-4
            for k in (-2, -1, 1, 2):
                p.data = start + k * step * direction
                losses.append(force_loss(model, batch, targets).item())
            p.data = start
            slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
            assert slope == pytest.approx((grad * direction).sum().item(), rel=1e-6, abs=1e-6 * loss.item()), name
