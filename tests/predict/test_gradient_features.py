"""Gradients by differences and by another library, and sketches whose products are theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdas.data import Frame
from sdas.predict import gradient_features, predict
from sdas.predict.gradient_features import energy_gradients


@pytest.fixture
def frames(systems):
    def framed(name, atoms):
        cell = atoms.cell.array if atoms.pbc.any() else None
        return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, atoms.pbc, None, None, None, name)

    return [framed(name, atoms) for name, atoms in systems.items()]


def test_gradients_are_those_of_differences(make_model, frames):
    """Of the energies of all frames, along directions in the space of all weights."""
    model, generator = make_model(), torch.Generator().manual_seed(4)
    gradients = energy_gradients(model, frames)
    for _ in range(3):
        energies, direction = [], []
        for weight in model.parameters():
            direction.append(torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        for sign in (1, -2):  # forward, and back to the other side
            for weight, part in zip(model.parameters(), direction, strict=True):
                weight.data.add_(part, alpha=1e-5 * sign)
            energies.append(predict(model, frames).energy)
        for weight, part in zip(model.parameters(), direction, strict=True):
            weight.data.add_(part, alpha=1e-5)
        along = gradients @ torch.cat([part.flatten() for part in direction])
        assert along.numpy() == pytest.approx((energies[0] - energies[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_products_of_gradients_are_those_of_bmdal(make_model, frames, monkeypatch):
    """Of the weights of a readout, whose features of atoms that library computes; frames are sums over atoms."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # the library is of the days of NumPy 1
    layers = pytest.importorskip("bmdal_reg.bmdal.layer_features", reason="BMDAL ABSENT: pip install bmdal-reg")
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.features import Features

    model = make_model(layers=1)
    scalars = torch.from_numpy(predict(model, frames, features=True).features[:, 0])
    (readout,) = model.readouts
    computed = [layers.LinearGradientComputation(readout[0]), layers.LinearGradientComputation(readout[2])]
    of_atoms = Features(layers.create_grad_feature_map(readout, computed), TensorFeatureData(scalars))
    rows = of_atoms.get_kernel_matrix(of_atoms).detach().numpy()
    owner = np.repeat(np.eye(len(frames)), [len(frame) for frame in frames], axis=1)  # [frames, atoms]
    wanted = owner @ rows @ owner.T

    model.requires_grad_(False)
    readout.requires_grad_(True)
    found = energy_gradients(model, frames)
    assert (found @ found.T).numpy() == pytest.approx(wanted, rel=1e-9)


def test_sketches_keep_products_and_follow_their_seed(make_model, frames):
    model = make_model(lmax=1, layers=1)
    gradients = energy_gradients(model, frames).numpy()
    wanted, size = gradients @ gradients.T, 64
    lengths = np.sqrt(np.outer(wanted.diagonal(), wanted.diagonal()))
    found = [gradient_features(model, frames, size, seed) for seed in range(30)]
    errors = np.array([(each @ each.T - wanted) / lengths for each in found])
    deviation = errors.std(axis=0)
    assert deviation.max() < 2 * (2 / size) ** 0.5  # of squares: √(2/size), of other products: less
    assert (np.abs(errors.mean(axis=0)) < 4 * deviation / len(found) ** 0.5 + 1e-12).all()
    assert np.array_equal(found[3], gradient_features(model, frames, size, seed=3))
    assert found[0].shape == (len(frames), size)
