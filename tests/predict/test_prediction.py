"""Predictions of frames: the model's own numbers, whatever the batches, and its features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.predict import predict, predict_batches


def framed(atoms, name="frame") -> Frame:
    cell = atoms.cell.array if atoms.pbc.any() else None
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, atoms.pbc, None, None, None, name)


def test_predictions_are_those_of_the_model_in_any_batch(systems, make_model, to_graph):
    model = make_model()
    frames = [framed(atoms, name) for name, atoms in systems.items()]
    together = predict(model, frames)
    first = 0
    for k, atoms in enumerate(systems.values()):
        out = model(to_graph(atoms))
        own = slice(first, first := first + len(atoms))
        assert together.energy[k] == pytest.approx(out["energy"].item(), rel=1e-12)
        assert together.forces[own] == pytest.approx(out["forces"].numpy(), abs=1e-10)
    assert together.stress is None
    assert together.features is None
    parts = list(predict_batches(model, iter(frames), 4))
    assert [len(batch) for batch, _ in parts] == [4, 2]
    assert np.concatenate([part.energy for _, part in parts]) == pytest.approx(together.energy, rel=1e-12)


def test_stress_is_that_of_the_model(systems, make_model, to_graph):
    model, atoms = make_model(), systems["liquid"]
    found = predict(model, [framed(atoms)], stress=True)
    assert found.stress == pytest.approx(model(to_graph(atoms), stress=True)["stress"].numpy(), abs=1e-10)


def test_features_make_the_energy(systems, make_model):
    """The readout of the last layer, applied to the scalars that are given out, is the part that it adds."""
    model = make_model(layers=1)
    atoms = systems["molecule"]
    found = predict(model, [framed(atoms)], features=True)
    assert found.features.shape == (len(atoms), 9, 8)
    atomic = model.readouts[0](torch.from_numpy(found.features[:, 0]))
    assert atomic.sum().item() == pytest.approx(found.energy[0], rel=1e-10)


def test_the_mode_of_the_model_is_kept(systems, make_model):
    model = make_model().train()
    for _ in predict_batches(model, [framed(systems["molecule"])], 1):
        assert not model.training
    assert model.training


def test_what_cannot_be_predicted_is_named(systems, make_model):
    model = make_model(species=[1, 8])
    with pytest.raises(SdasError, match=r"ethanol: the model does not know C; .*Train on frames with C"):
        predict(model, [framed(systems["molecule"], "ethanol")])
    with pytest.raises(SdasError, match="batch size must be at least 1, got 0"):
        next(predict_batches(model, [], 0))
    broken = make_model()
    with torch.no_grad():
        broken.embedding.weight[broken.species.tolist().index(8)] = float("nan")
    with pytest.raises(SdasError, match="water: the model's energy is not finite"):
        predict(broken, [framed(systems["no edges"][1:2], "hydrogen"), framed(systems["liquid"], "water")])
