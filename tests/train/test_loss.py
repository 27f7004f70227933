"""The loss is the one written down, whatever labels a batch has, and means the same for every number of atoms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdas_kernels as sk
from sdas.config import TrainConfig
from sdas.data import Frame
from sdas.errors import TrainingError
from sdas.train.graphs import GraphStore
from sdas.train.loss import Loss
from sdas.train.objective import trained_labels
from sdas_kernels.nn import derivatives
from sdas_kernels.nn.fused import layer_weights

UNIT, ENERGY_UNIT = 0.7, 1.9


def crystal(n: int, seed: int, **fields) -> Frame:
    """n atoms in a cell of 5 Å with every label."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*3 * [np.arange(3)], indexing="ij"), -1).reshape(-1, 3)[:n] * 1.6
    stress = rng.normal(size=(3, 3))
    values = {
        "numbers": np.array([8, 1] * n)[:n],
        "positions": grid + 0.1 * rng.normal(size=(n, 3)),
        "cell": 5.0 * np.eye(3) + 0.1 * rng.normal(size=(3, 3)),
        "pbc": np.ones(3, bool),
        "energy": float(rng.normal()),
        "forces": rng.normal(size=(n, 3)),
        "stress": 0.05 * (stress + stress.T),
        "source": f"crystal {seed}",
    }
    return Frame(**{**values, **fields})


def molecule(n: int, seed: int, **fields) -> Frame:
    return crystal(n, seed, cell=None, pbc=np.zeros(3, bool), stress=None, **fields)


MIXED = [
    crystal(3, 0, weight=0.5, config_type="bulk"),
    crystal(5, 1, energy=None),
    molecule(4, 2, forces=None, config_type="gas"),
    molecule(2, 3, energy=None, weight=3.0),
    crystal(6, 4, forces=None, config_type="bulk"),
]
TYPES = {"bulk": 2.0, "Default": 0.25}
FACTORS = [0.5 * 2.0, 0.25, 0.25, 3.0 * 0.25, 2.0]
"""Weights of MIXED: own times that of the type."""


def settings(**values) -> TrainConfig:
    return TrainConfig(steps=10, energy_weight=0.3, forces_weight=0.7, stress_weight=1.1, **values)


def predictions(frames, seed=9):
    rng = np.random.default_rng(seed)
    return {
        "energy": rng.normal(size=len(frames)),
        "forces": rng.normal(size=(sum(map(len, frames)), 3)),
        "stress": 0.05 * rng.normal(size=(len(frames), 3, 3)),
    }


def cost(kind, error, delta):
    error = np.asarray(error, dtype=float).ravel()
    if kind == "norm":
        return np.sqrt((error**2).sum())
    if kind == "squared":
        return (error**2).mean()
    small = np.abs(error) <= delta
    return np.where(small, error**2, 2 * delta * np.abs(error) - delta**2).mean()


def formula(frames, factors, predicted, kind, delta, root):
    """The loss by loops over frames and atoms."""
    energies, forces, stresses, atom = [], [], [], 0
    for k, (frame, w) in enumerate(zip(frames, factors, strict=True)):
        n = len(frame)
        if frame.energy is not None:
            energies.append(
                w * cost(kind, (predicted["energy"][k] - frame.energy) / (n**0.5 if root else n) / ENERGY_UNIT, delta)
            )
        if frame.forces is not None:
            of_frame = predicted["forces"][atom : atom + n] - frame.forces
            forces += [w * cost(kind, of_atom / UNIT, delta) for of_atom in of_frame]
        if frame.stress is not None:
            virial = abs(np.linalg.det(frame.cell)) * (predicted["stress"][k] - frame.stress)
            stresses.append(w * cost(kind, virial / n / UNIT, delta))
        atom += n
    return 0.3 * np.mean(energies) + 0.7 * np.mean(forces) + 1.1 * np.mean(stresses)


def loss_of(config, frames, predicted, types=None):
    store = GraphStore(frames, 3.0, torch.float64, 2**20, types)
    loss, batch = Loss(config, UNIT, ENERGY_UNIT), store.batch(np.arange(len(frames)))
    weights = loss.weights(0.0)
    tensors = {name: torch.tensor(values) for name, values in predicted.items()}
    return loss(tensors, batch, loss.terms(batch, weights), weights, batch.counts).item()


@pytest.mark.parametrize("root", [False, True], ids=["per atom", "per root"])
@pytest.mark.parametrize("kind", ["squared", "huber", "norm"])
def test_every_loss_is_its_formula_with_missing_labels_and_weights(kind, root):
    config = settings(loss=kind, huber_delta=0.3, energy_per="sqrt_atom" if root else "atom")
    predicted = predictions(MIXED)
    expected = formula(MIXED, FACTORS, predicted, kind, 0.3, root)
    assert loss_of(config, MIXED, predicted, TYPES) == pytest.approx(expected, rel=1e-12)
    whole = [crystal(3, 0), crystal(5, 1)]
    predicted = predictions(whole)
    expected = formula(whole, [1, 1], predicted, kind, 0.3, root)
    assert loss_of(config, whole, predicted) == pytest.approx(expected, rel=1e-12)


def doubled(frame):
    """Two cells along the first axis, with the labels that belong to them."""
    return Frame(
        np.tile(frame.numbers, 2),
        np.concatenate([frame.positions, frame.positions + frame.cell[0]]),
        frame.cell * [[2], [1], [1]],
        frame.pbc,
        2 * frame.energy,
        np.tile(frame.forces, (2, 1)),
        frame.stress,
        "doubled",
    )


@pytest.mark.parametrize("kind", ["squared", "huber", "norm"])
def test_a_supercell_costs_as_much_as_its_cell(kind):
    torch.manual_seed(0)
    model = sk.nn.SDAS([1, 8], channels=4, heads=2, lmax=1, layers=1, cutoff=3.0, n_radial=3).double()
    costs = []
    for frame in (crystal(4, 5), doubled(crystal(4, 5))):
        graph = sk.NeighborGraph.build(frame.positions, frame.numbers, 3.0, frame.cell, frame.pbc, torch.float64)
        predicted = {name: value.detach().numpy() for name, value in model(graph, stress=True).items()}
        costs.append(loss_of(settings(loss=kind), [frame], predicted))
    assert costs[1] == pytest.approx(costs[0], rel=1e-9)


def test_the_gradient_of_the_stress_loss_by_every_weight_is_right_on_the_fused_route(monkeypatch):
    torch.manual_seed(1)
    model = sk.nn.SDAS([1, 8], channels=2, heads=2, lmax=1, layers=2, cutoff=3.0, n_radial=2, key_channels=1).double()
    config = TrainConfig(steps=1, energy_weight=0.0, forces_weight=0.0, stress_weight=1.0)
    batch = GraphStore(MIXED, 3.0, torch.float64, 2**20, TYPES).batch(np.arange(len(MIXED)))
    loss = Loss(config, UNIT, ENERGY_UNIT)
    weights = loss.weights(0.0)
    terms = loss.terms(batch, weights)
    assert (terms.energy, terms.forces, terms.stress) == (False, False, True)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]

    def value():
        return loss(model(batch.graph, forces=False, stress=True), batch, terms, weights, batch.counts)

    def gradients():
        found = torch.autograd.grad(value(), parameters, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(parameters, found, strict=True)]

    assert layer_weights(model) is not None
    fused = gradients()
    with monkeypatch.context() as patch:
        patch.setattr(derivatives, "layer_weights", lambda model: None)
        by_layers = gradients()
    step, largest = 1e-5, max(float(g.abs().max()) for g in fused)
    for weight, of_fused, of_layers in zip(parameters, fused, by_layers, strict=True):
        numeric = torch.zeros_like(weight)
        flat = weight.detach().view(-1)
        for k in range(len(flat)):
            ends = []
            for sign in (1, -1):
                flat[k] += sign * step
                ends.append(value().item())
                flat[k] -= sign * step
            numeric.view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(of_fused, of_layers, rtol=1e-9, atol=1e-12 * largest)
        torch.testing.assert_close(of_fused, numeric, rtol=1e-6, atol=1e-8 * largest)
    assert largest > 0


def test_the_energy_weight_changes_late_in_the_run():
    loss = Loss(settings(energy_weight_late=30.0, late_from=0.6), UNIT, ENERGY_UNIT)
    assert [loss.weights(fraction).energy for fraction in (0.0, 0.59, 0.6, 1.0)] == [0.3, 0.3, 30.0, 30.0]
    assert loss.weights(0.9).forces == 0.7
    assert Loss(settings(), UNIT, ENERGY_UNIT).weights(1.0).energy == 0.3


def test_only_what_is_trained_is_asked_of_the_model():
    store = GraphStore(MIXED, 3.0, torch.float64, 2**20)
    cases = {
        (2,): (True, False, False),
        (3,): (False, True, False),
        (2, 3): (True, True, False),
        (4,): (True, False, True),
    }
    for indices, expected in cases.items():
        batch = store.batch(np.array(indices))
        terms = Loss(settings(), UNIT, ENERGY_UNIT).terms(batch, Loss(settings(), UNIT, ENERGY_UNIT).weights(0))
        assert (terms.energy, terms.forces, terms.stress) == expected
    forceless = settings().model_copy(update={"forces_weight": 0.0})
    loss = Loss(forceless, UNIT, ENERGY_UNIT)
    assert not loss.terms(store.batch(np.array([0])), loss.weights(0)).forces


def test_what_is_trained_on_is_told_and_nothing_is_refused():
    every = np.arange(len(MIXED))
    assert (
        trained_labels(settings(), MIXED, every)
        == "trained on: energy of 3 frames, forces of 3 frames, stress of 3 frames"
    )
    no_stress = settings().model_copy(update={"stress_weight": 0.0})
    assert trained_labels(no_stress, MIXED, np.array([0, 4])) == (
        "trained on: energy of 2 frames, forces of 1 frames; not on: stress of 2 frames, as train.stress_weight is 0"
    )
    assert "not on: forces, which no frame has; stress, which no frame has" in trained_labels(settings(), MIXED, [2])
    with pytest.raises(
        TrainingError, match="nothing to learn from 1 training frames; not trained on: energy of 1 frames"
    ):
        trained_labels(settings().model_copy(update={"energy_weight": 0.0}), MIXED, np.array([2]))
    with pytest.raises(TrainingError, match="names liquid, which no training frame is; their config_type is bulk, gas"):
        trained_labels(settings(config_type_weights={"liquid": 2.0, "bulk": 1.0}), MIXED, every)
