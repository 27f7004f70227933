"""Variances by their formula, intervals that hold what they promise, and a last layer that is a linear model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.predict import Calibration, LastLayer, Prediction, combine, frame_features, predict, predict_ensemble
from sdas.predict.calibration import LEVELS


def framed(atoms, name) -> Frame:
    cell = atoms.cell.array if atoms.pbc.any() else None
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, atoms.pbc, None, None, None, name)


def test_variances_are_those_over_the_models():
    """Of two frames with one and two atoms: by hand."""
    first = Prediction(np.array([1.0, 4.0]), np.array([[0.0, 0, 0], [3, 0, 0], [0, 0, 0]]))
    second = Prediction(np.array([3.0, 4.0]), np.array([[0.0, 6, 0], [1, 0, 2], [0, 0, 0]]))
    found = combine([first, second], [1, 2])
    assert found.energy.tolist() == [2.0, 4.0]
    assert found.energy_variance.tolist() == [1.0, 0.0]
    assert found.forces.tolist() == [[0, 3, 0], [2, 0, 1], [0, 0, 0]]
    assert found.force_variance == pytest.approx([9 / 3, 2 / 3, 0])
    assert found.mean_force_variance == pytest.approx([3, 1 / 3])
    assert found.largest_force_variance == pytest.approx([3, 2 / 3])


def test_an_ensemble_is_its_models_together(systems, make_model):
    frames, models = [framed(atoms, name) for name, atoms in systems.items()], []
    for scale in (0.5, 1.0, 1.5):  # models of other weights
        models.append(make_model())
        for weight in models[-1].parameters():
            weight.data.mul_(scale)
    parts = list(predict_ensemble(models, iter(frames), batch_size=4))
    assert [len(batch) for batch, _ in parts] == [4, 2]
    alone = [predict(model, frames) for model in models]
    energies, forces = np.stack([each.energy for each in alone]), np.stack([each.forces for each in alone])
    assert np.concatenate([part.energy for _, part in parts]) == pytest.approx(energies.mean(0), rel=1e-10)
    variance = np.mean((energies - energies.mean(0)) ** 2, axis=0)
    assert np.concatenate([part.energy_variance for _, part in parts]) == pytest.approx(variance, rel=1e-6)
    of_atoms = np.mean((forces - forces.mean(0)) ** 2, axis=(0, 2))
    assert np.concatenate([part.force_variance for _, part in parts]) == pytest.approx(of_atoms, rel=1e-6, abs=1e-14)
    with pytest.raises(SdasError, match="at least one model"):
        next(predict_ensemble([], frames))


def test_features_are_summed_by_element(systems, make_model):
    model, atoms = make_model(), systems["molecule"]
    frames = [framed(atoms, "one"), framed(systems["one atom"], "two")]
    prediction = predict(model, frames, features=True)
    found = frame_features(prediction, frames, model.species.tolist()).reshape(2, len(model.species), -1)
    for row, number in enumerate(model.species.tolist()):
        wanted = prediction.features[: len(atoms), 0][atoms.numbers == number].sum(axis=0)
        assert found[0, row] == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(SdasError, match="ask for them by features=True"):
        frame_features(predict(model, frames), frames, model.species.tolist())


def test_the_last_layer_is_as_unsure_as_a_linear_model():
    """By the formula φᵀ (FᵀF + ς²)⁻¹ φ, with an inverse."""
    generator = np.random.default_rng(0)
    training, asked = generator.normal(size=(20, 4)), generator.normal(size=(7, 4))
    ridge = 0.3
    inverse = np.linalg.inv(training.T @ training + ridge * np.mean(training**2) * np.eye(4))
    wanted = np.einsum("bi,ij,bj->b", asked, inverse, asked)
    assert LastLayer(training, ridge).variance(asked) == pytest.approx(wanted, rel=1e-10)


@pytest.fixture(scope="module")
def normal():
    """Errors whose deviations are told a third as large as they are."""
    generator = np.random.default_rng(3)
    sigma = np.exp(generator.normal(size=8000))
    return sigma * generator.normal(size=8000), sigma / 3


def test_a_calibration_holds_what_it_promises(normal):
    errors, told = normal
    calibration = Calibration.of(errors[:4000], told[:4000])
    assert calibration.scale == pytest.approx(3, rel=0.03)
    wanted = 3 * norm.ppf(0.5 + 0.5 * np.array(LEVELS))
    assert np.array(calibration.factors) == pytest.approx(wanted, rel=0.1)
    judged = calibration.judged(errors[4000:], told[4000:])
    assert judged["coverage"] == pytest.approx(0.95, abs=0.012)
    assert np.array(judged["reliability"]) == pytest.approx(np.array(LEVELS), abs=0.03)
    assert judged["sharpness"] == pytest.approx(calibration.factors[-1] * told[4000:].mean())
    assert judged["nll"] == pytest.approx(-norm.logpdf(errors[4000:], scale=3 * told[4000:]).mean(), abs=0.01)
    assert judged["rmse"] == pytest.approx(np.sqrt(np.mean(errors[4000:] ** 2)))


def test_coverage_is_at_least_the_level_on_average():
    """The conformal guarantee, from 30 errors each time, whatever their distribution."""
    generator = np.random.default_rng(5)
    covered = []
    for _ in range(2000):
        errors = generator.standard_t(2, size=31)
        width = Calibration.of(errors[:30], np.ones(30)).width(np.ones(1))
        covered.append(abs(errors[30]) <= width[0])
    assert np.mean(covered) == pytest.approx(30 / 31, abs=3 * (0.032 / 2000) ** 0.5)  # ⌈31 · 0.95⌉ of 31 places


def test_too_few_errors_calibrate_nothing():
    Calibration.of(np.arange(19.0), np.ones(19))
    with pytest.raises(SdasError, match="needs at least 19 errors, got 18"):
        Calibration.of(np.arange(18.0), np.ones(18))
    with pytest.raises(SdasError, match="differ in shape"):
        Calibration.of(np.ones((4, 3)), np.ones(4))
