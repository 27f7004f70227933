"""A model whose energies of elements are those of atoms alone gives them exactly to such atoms, and trains as it is."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdas_kernels as sk
from sdas.data import FrameCache, write_cache
from sdas.run.checkpoint import load_model, load_training_state
from sdas.train.loop import train
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until

KNOWN = {"H": -12.5, "O": -2040.0}


def alone(model, number, **state):
    graph = sk.NeighborGraph.build(np.zeros((1, 3)), [number], model.cutoff, dtype=torch.float64, **state)
    return model(graph)["energy"].item()


@pytest.fixture
def opened(make_config, mixed_cache_path):
    """A session on frames that lack one label or another, whose elements have known energies."""

    def make(run="run", **settings):
        config = make_config(run, data={"path": str(mixed_cache_path)}, energy_reference=KNOWN, **settings)
        data = TrainingData(FrameCache.open(mixed_cache_path), np.arange(16), np.arange(16, 24))
        return Session(config, data, Processes("cpu"))

    return make


def test_a_trained_model_is_exact_for_atoms_alone(make_config, mixed_cache_path, capsys):
    """And its FLOPs are known without counting every step: else there were a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = [
            train(make_config(name, data={"path": str(mixed_cache_path)}, energy_reference=reference, steps=12))
            for name, reference in (("known", KNOWN), ("fitted", "fit"))
        ]
    assert "which the model gives exactly to atoms alone" in capsys.readouterr().err
    known, fitted = (load_model(run.run_dir / "model") for run in runs)
    assert [alone(known, 1), alone(known, 8)] == pytest.approx([-12.5, -2040.0], abs=1e-9)
    assert abs(alone(fitted, 1) - fitted.energy_shift[0].item()) > 1e-3
    assert runs[0].summary["train_flops"] > runs[1].summary["train_flops"]


def test_what_is_trained_is_the_energy_above_that_of_the_atoms_alone(opened):
    """By one call of the model for each frame and each atom, and PyTorch's derivatives of them."""
    with opened() as session:
        session.advance(Until(steps=2))
        indices, batch = session._feed.take(2)
        weights = session._loss.weights(0.0)
        terms, total = session._loss.terms(batch, weights), session._store.counts(indices)
        predicted = session.model(batch.graph, forces=terms.forces, stress=terms.stress)
        loss = session._loss(predicted, batch, terms, weights, total)
        found = torch.autograd.grad(loss, session._weights)

        frames, atoms = [session._store.batch(indices[k : k + 1]) for k in range(len(indices))], {}
        for z, energy in ((1, -12.5), (8, -2040.0)):
            graph = sk.NeighborGraph.build(np.zeros((1, 3)), [z], session.model.cutoff, dtype=torch.float64)
            atoms[z] = session.model(graph)["energy"] - energy
        energies = [
            session.model(one.graph)["energy"] - sum(atoms[z] for z in one.graph.numbers.tolist()) for one in frames
        ]
        plain = session._store.batch(indices)
        given = {**session.model(plain.graph, stress=terms.stress), "energy": torch.cat(energies)}
        expected = session._loss(given, plain, terms, weights, total)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        for a, b in zip(found, torch.autograd.grad(expected, session._weights), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_model_that_is_settled_has_the_energies_that_were_trained(opened):
    with opened() as session:
        session.advance(Until(steps=3))
        model = copy.deepcopy(session.model).eval()
        session._lone_atoms.settle(model)
        batch = session._store.batch(np.arange(6))
        own = [session.model(batch.graph)["energy"]]
        for z in (1, 8):
            own.append((batch.graph.numbers == z).double() * (alone(session.model, z) - KNOWN["OH"[z == 1]]))
        taken_off = torch.zeros(6, dtype=torch.float64).index_add(0, batch.graph.system, own[1] + own[2])
        torch.testing.assert_close(model(batch.graph)["energy"], own[0] - taken_off, rtol=0, atol=1e-9)


def test_a_resumed_run_ends_with_the_same_numbers(opened):
    ends = []
    for run, stops in {"one": [12], "two": [5, 12]}.items():
        for stop in stops:
            with opened(run, steps=12, deterministic=True) as session:
                session.advance(Until(steps=stop))
                session.save()
                folder = session.folder / "checkpoints"
        ends.append(load_training_state(folder).tensors)
    assert (ends[0]["averaged.energy_shift"] != ends[0]["model.energy_shift"]).all()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_with_charge_and_spin_the_atom_is_exact_in_the_state_that_it_was_computed_in(make_config, tmp_path, molecules):
    frames = [replace(frame, spin=spin) for frame, spin in zip(molecules(12), [2.0, 1.0, 3.0] * 4, strict=True)]
    atom = {"positions": np.zeros((1, 3)), "forces": np.zeros((1, 3))}
    isolated = [
        replace(frames[0], numbers=np.array([z]), energy=energy, spin=spin, **atom)
        for z, energy, spin in ((1, -12.5, 2.0), (8, -2040.0, 3.0))
    ]
    path = str(write_cache(isolated + frames, tmp_path / "frames").path)
    config = make_config(data={"path": path, "split": {"sizes": [10, 2, 0]}}, learning_rate=0.1)
    config.model.charge_spin = True
    model = load_model(train(config).run_dir / "model")
    assert [alone(model, 1, spin=2), alone(model, 8, spin=3)] == pytest.approx([-12.5, -2040.0], abs=1e-9)
    assert abs(alone(model, 1) + 12.5) > 1e-3


def test_runs_that_fit_or_began_before_leave_atoms_alone_as_they_come(opened):
    with opened(energy_weight=0.0) as session:
        assert session._lone_atoms is None
    with opened() as session:
        session.changes.energy_reference = {"origin": "2 isolated atoms", "shifts_ev": KNOWN}
        session._arrange()
        assert session._lone_atoms is None
        assert session._feed.take(0)[1].beside is None
