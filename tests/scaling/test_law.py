"""The scaling law: known laws are found again, intervals hold the truth, and what cannot be known is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdas.errors import ScalingError
from sdas.scaling.law import LEAST_POINTS, LEAST_RANGE, fit

LATER = 3e12
CURVE = (np.linspace(1e11, 1e12, 30), 0.01 + 0.02 * np.linspace(0.1, 1, 30) ** -0.4)


def held(interval, truth):
    return interval[0] <= truth <= interval[1]


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (lambda law: law.interval("alpha"), lambda true: true.alpha),
        (lambda law: law.interval("e_inf"), lambda true: 0.03 * true.floor),
        (lambda law: law.interval("a"), lambda true: 0.03 * (1 - true.floor) * true.last**true.alpha),
        (lambda law: law.marginal_gain_interval(1e12), lambda true: true.gain(1e12)),
        (lambda law: law.slope_interval(1e12), lambda true: true.slope(1e12)),
        (lambda law: law.predict_interval(LATER), lambda true: true.error(LATER)),
    ],
    ids=["alpha", "e_inf", "a", "marginal_gain", "slope", "predict"],
)
def test_the_95_percent_interval_holds_the_truth_in_at_least_90(laws, interval, truth):
    """Of 200 curves of ten kinds: noise of 1 to 5 %, correlated noise, outliers, transients, no floor, few points."""
    assert len(laws) == 200
    assert sum(held(interval(law), truth(true)) for true, law in laws) >= 180


def test_intervals_hold_the_truth_where_the_floor_is_zero(without_floor):
    """Zero is the edge of what E∞ may be, and quantiles about the best curve alone are too narrow there."""
    true = without_floor
    fitted = [fit(*true.measured(seed), seed=seed) for seed in range(100, 180)]
    assert sum(held(law.interval("alpha"), true.alpha) for law in fitted) >= 72
    assert sum(held(law.predict_interval(LATER), true.error(LATER)) for law in fitted) >= 72


def test_intervals_are_no_wider_than_they_have_to_be(laws):
    """An interval from zero to infinity would hold every truth."""
    widths = [law.interval("alpha")[1] / law.interval("alpha")[0] for _, law in laws]
    assert np.median(widths) < 2


def test_a_curve_without_noise_is_found_again():
    law = fit(*CURVE)
    np.testing.assert_allclose([law.alpha, law.e_inf, law.a], [0.4, 0.01, 0.02 * 1e12**0.4], rtol=1e-3)
    assert law.identifiable
    assert law.why == ""
    assert law.left_out == 0


def test_without_a_floor_the_floor_is_zero_and_never_negative(laws):
    assert all(law.e_inf >= 0 and law.a >= 0 for _, law in laws)
    compute = CURVE[0]
    law = fit(compute, 0.03 * (compute / 1e12) ** -0.3)
    assert law.e_inf < 1e-4
    assert law.alpha == pytest.approx(0.3, rel=0.01)


def test_a_bent_curve_that_would_want_a_negative_floor_gets_zero():
    compute = CURVE[0]
    law = fit(compute, 0.03 * (compute / 1e12) ** -0.3 - 0.01)
    assert law.e_inf == 0


def test_transients_are_left_out_and_nothing_else_is(laws):
    with_transient = [law.left_out for true, law in laws if true.transient]
    others = [law.left_out for true, law in laws if not true.transient]
    assert min(with_transient) >= 3
    assert max(with_transient) <= 8
    assert np.mean(others) < 0.3
    assert max(others) <= 13


def test_an_outlier_moves_the_law_by_less_than_its_interval():
    compute, error = CURVE
    noisy = error * np.exp(0.01 * np.random.default_rng(3).normal(size=len(error)))
    spoiled = noisy.copy()
    spoiled[15] *= 3
    clean, robust = fit(compute, noisy), fit(compute, spoiled)
    assert held(clean.interval("alpha"), robust.alpha)
    assert robust.predict(1e12) == pytest.approx(clean.predict(1e12), rel=0.01)


def test_the_scatter_is_the_noise_of_most_points(laws):
    """Outliers and transients are no part of it."""
    ratios = [law.scatter / true.noise for true, law in laws if not true.correlation]
    assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert 0.5 < min(ratios) < max(ratios) < 2


@pytest.mark.parametrize("seed", range(5))
def test_a_short_curve_is_neither_ready_nor_identifiable(seed):
    compute, error = CURVE
    noisy = error * np.exp(0.02 * np.random.default_rng(seed).normal(size=len(error)))
    few = fit(compute[:: len(compute) // (LEAST_POINTS - 2)][: LEAST_POINTS - 1], noisy[: LEAST_POINTS - 1])
    narrow = fit(np.linspace(1e12, 0.9 * LEAST_RANGE * 1e12, 30), noisy)
    for law, words in ((few, "points are too few"), (narrow, "compute spans a factor of")):
        assert not law.ready
        assert not law.identifiable
        assert words in law.why


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (lambda c: np.full_like(c, 0.03), "does not fall"),
        (lambda c: 0.03 * c**0.1, "does not fall"),
        (lambda c: 0.03 + 0.0001 * c**-4, "at an end"),
        (lambda c: 0.02 + 0.02 * c**-0.1, "bends too little"),
    ],
    ids=["flat", "rising", "steeper than any", "hardly bent"],
)
def test_a_curve_that_does_not_determine_the_law_is_not_identifiable(curve, words):
    compute = np.geomspace(0.05, 1, 40)
    for seed in range(5):
        noise = np.exp(0.02 * np.random.default_rng(seed).normal(size=40))
        law = fit(1e12 * compute, curve(compute) * noise)
        assert law.ready
        assert not law.identifiable
        assert words in law.why


@pytest.mark.parametrize("curve", [lambda c: 0.05 - 0.03 * c, lambda c: 0.05 - 0.02 * c**2])
def test_a_curve_that_falls_faster_and_faster_is_not_judged_by_the_law(curve):
    """The law would see a small gain, and let a model grow that has just begun to learn."""
    compute = np.geomspace(0.01, 1, 40)
    for seed in range(5):
        noise = np.exp(0.02 * np.random.default_rng(seed).normal(size=40))
        law = fit(1e12 * compute, curve(compute) * noise)
        assert not law.ready
        assert not law.identifiable
        assert "faster and faster" in law.why


def test_known_laws_are_ready(laws):
    assert sum(law.ready for _, law in laws) >= 195


def test_a_wide_interval_makes_a_law_not_identifiable(laws):
    for _, law in laws:
        low, high = law.interval("alpha")
        assert law.identifiable == (law.why == "")
        assert high <= 3 * low or not law.identifiable
    assert 0 < sum(law.identifiable for _, law in laws) < len(laws)


def test_the_same_seed_gives_the_same_law_bit_for_bit():
    compute, error = CURVE
    noisy = error * np.exp(0.02 * np.random.default_rng(0).normal(size=len(error)))
    first, again, other = fit(compute, noisy, seed=7), fit(compute, noisy, seed=7), fit(compute, noisy, seed=8)
    assert json.dumps(first.as_dict()) == json.dumps(again.as_dict())
    assert first.predict_interval(LATER) == again.predict_interval(LATER)
    assert other.interval("alpha") != first.interval("alpha")
    assert other.alpha == first.alpha


def test_units_of_compute_and_error_change_nothing_but_units():
    compute, error = CURVE
    noisy = error * np.exp(0.02 * np.random.default_rng(0).normal(size=len(error)))
    law, scaled = fit(compute, noisy), fit(compute * 1e-12, noisy * 1000)
    for name, factor in (("alpha", 1), ("e_inf", 1000), ("a", 1000 * 1e-12**law.alpha)):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(law, name), rel=1e-6)
    np.testing.assert_allclose(scaled.interval("alpha"), law.interval("alpha"), rtol=1e-3)
    np.testing.assert_allclose(scaled.predict_interval(3), 1000 * np.array(law.predict_interval(LATER)), rtol=1e-3)
    np.testing.assert_allclose(
        scaled.marginal_gain_interval(1), 1e15 * np.array(law.marginal_gain_interval(1e12)), rtol=1e-3
    )
    assert scaled.slope(1) == pytest.approx(law.slope(1e12), rel=1e-6)


def test_predictions_fall_and_gains_fall(laws):
    compute = np.geomspace(1e11, 1e15, 50)
    for _, law in laws[::10]:
        assert np.all(np.diff(law.predict(compute)) < 0)
        assert np.all(np.diff(law.marginal_gain(compute)) < 0)
        assert np.all(law.predict(compute) > law.e_inf)


def test_the_gain_is_the_derivative_of_the_prediction():
    law = fit(CURVE[0], CURVE[1] * np.exp(0.01 * np.random.default_rng(0).normal(size=30)))
    step = 1e7
    difference = (law.predict(1e12 - step) - law.predict(1e12 + step)) / (2 * step)
    assert law.marginal_gain(1e12) == pytest.approx(difference, rel=1e-5)
    assert law.slope(1e12) == pytest.approx(difference * 1e12 / law.predict(1e12), rel=1e-5)
    assert held(law.marginal_gain_interval(1e12), law.marginal_gain(1e12))


def test_a_wider_level_makes_a_wider_interval(laws):
    law = laws[0][1]
    narrow, wide = law.interval("alpha", level=0.5), law.interval("alpha", level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("compute", "error", "words"),
    [
        ([1, 2, 3], [3, 2, 1], "at least 4 points, got 3"),
        ([1, 2, 3, 4], [3, 2, 1], "shapes"),
        ([[1, 2, 3, 4]], [[4, 3, 2, 1]], "shapes"),
        ([1, 2, 2, 4], [4, 3, 2, 1], "compute must rise .* got 2 after 2"),
        ([0, 1, 2, 3], [4, 3, 2, 1], "compute must be positive and finite, got 0.0 at place 0"),
        ([1, 2, 3, 4], [4, 3, -2, 1], "error must be positive and finite, got -2.0 at place 2"),
        ([1, 2, 3, 4], [4, float("nan"), 2, 1], "error must be positive and finite, got nan at place 1"),
        ([1, 2, 3, float("inf")], [4, 3, 2, 1], "compute must be positive and finite, got inf at place 3"),
    ],
)
def test_curves_that_are_none_are_refused(compute, error, words):
    with pytest.raises(ScalingError, match=words):
        fit(compute, error)


def test_questions_without_an_answer_are_refused():
    law = fit(*CURVE)
    with pytest.raises(ScalingError, match="name must be alpha, e_inf or a, got 'beta'"):
        law.interval("beta")
    with pytest.raises(ScalingError, match="level must lie between 0 and 1, got 95"):
        law.interval("alpha", level=95)
    with pytest.raises(ScalingError, match="compute must be positive, got 0"):
        law.predict(0)
    with pytest.raises(ScalingError, match="resamples must be at least 20, got 3"):
        fit(*CURVE, resamples=3)
