"""The rules of adaptive scaling: right decisions on known curves, each with its reason; senseless rules are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sdas.errors import ConfigError, ScalingError
from sdas.scaling.law import fit
from sdas.scaling.policy import State, Trial, candidates, decide, paired_noise, rank
from sdas.scaling.rules import Rules, Sizes

SIZES = Sizes(channels=32, heads=32, layers=2, lmax=2, frames=500)
RULES = Rules(budget_flops=1e13, delta_flops=1e11, epsilon=0.05, worth=0.5)
STATE = State(spent=1.2e12, compute=1e12, error=0.03, sizes=SIZES, pool_frames=950)
COMPUTE = np.linspace(0.03, 1, 40)


def law_of(error, seed=0):
    """A law of E(C), C up to 1, stretched to 1e12 FLOPs."""
    return fit(1e12 * COMPUTE, error * np.exp(0.01 * np.random.default_rng(seed).normal(size=40)))


@pytest.fixture(scope="module")
def steep():
    return law_of(0.03 * COMPUTE**-0.4)


@pytest.fixture(scope="module")
def level():
    return law_of(0.03 + 0.0002 * COMPUTE**-1.0)


def trial(axis, gain, flops=1e10, noise=0.0, state=STATE):
    sizes = candidates(state.sizes, state.pool_frames, RULES)[axis]
    return Trial(axis, sizes, before=0.03, after=0.03 - gain, flops=flops, noise=noise)


@pytest.mark.parametrize("unit", ["relative", "eV/Å/FLOP"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_decisions_are_right_on_at_least_95_percent_of_known_curves(laws, unit, factor):
    """ε is half or twice the true gain: train on, or scale up. 200 curves, some of them not identifiable."""
    right = 0
    for true, law in laws:
        gain = true.slope(1e12) if unit == "relative" else true.gain(1e12)
        rules = replace(RULES, epsilon=factor * gain, epsilon_unit=unit, choose="all")
        right += decide(law, STATE, rules).action == ("go on" if factor < 1 else "scale up")
    assert right >= 190


def test_a_steep_curve_goes_on_and_a_level_one_grows(steep, level):
    assert decide(steep, STATE, RULES).action == "go on"
    decision = decide(level, STATE, replace(RULES, choose="all"))
    assert decision.action == "scale up"
    assert decision.sizes == Sizes(channels=64, heads=32, layers=3, lmax=3, frames=950)
    assert decision.axes == ("width", "depth", "degree", "data")
    assert decision.until == STATE.spent + RULES.delta_flops
    assert "no longer pays" in decision.reason


def test_what_is_not_identifiable_is_judged_by_the_upper_end_of_its_gain():
    """Between the gain as fitted and its upper end lies an ε at which only a law that is known lets the model grow."""
    law = next(law for law in (law_of(0.02 + 0.01 * COMPUTE**-0.1, seed) for seed in range(9)) if not law.identifiable)
    gain, (_, upper) = law.slope(1e12), law.slope_interval(1e12)
    between = replace(RULES, epsilon=(gain + upper) / 2, choose="all")
    assert gain < upper
    assert decide(law, STATE, between).action == "go on"
    assert "upper end" in decide(law, STATE, between).reason
    assert decide(replace(law, identifiable=True, why=""), STATE, between).action == "scale up"
    assert decide(law, STATE, replace(between, epsilon=1.01 * upper)).action == "scale up"


def test_a_curve_that_is_too_short_goes_on(level):
    short = fit(1e12 * np.linspace(0.8, 1, 8), np.full(8, 0.03))
    decision = decide(short, STATE, RULES)
    assert decision.action == "go on"
    assert short.why in decision.reason


def test_a_run_stops_when_the_budget_is_spent_or_the_target_is_reached(steep):
    spent = decide(steep, replace(STATE, spent=1e13), RULES)
    assert (spent.action, "budget" in spent.reason) == ("stop", True)
    reached = decide(steep, STATE, replace(RULES, target=0.031))
    assert (reached.action, "target" in reached.reason) == ("stop", True)
    assert decide(steep, STATE, replace(RULES, target=0.029)).action == "go on"


def test_the_last_stretch_ends_with_the_budget(steep):
    assert decide(steep, replace(STATE, spent=1e13 - 5e10), RULES).until == 1e13


def test_trials_are_asked_for_and_the_better_half_of_them_grows(level):
    asked = decide(level, STATE, RULES)
    assert asked.action == "try"
    assert asked.axes == ("width", "depth", "degree", "data")
    trials = (trial("width", 0.001), trial("degree", 0.002), trial("data", -0.001))
    decision = decide(level, replace(STATE, trials=trials), RULES)
    assert decision.action == "scale up"
    assert decision.axes == ("degree", "width")
    assert decision.sizes == replace(SIZES, lmax=3, channels=64)
    assert not decision.reset_optimizer
    harmful = (trial("width", -0.001), trial("degree", 0.002), trial("data", -0.002))
    assert decide(level, replace(STATE, trials=harmful), RULES).axes == ("degree",)


def test_a_run_stops_when_no_candidate_gains(level):
    for trials in (
        (trial("width", -0.001), trial("depth", 0.0)),
        (trial("width", -0.0012, noise=0.0007),),  # 1.71 standard errors: sure by 95 %
    ):
        decision = decide(level, replace(STATE, trials=trials), RULES)
        assert decision.action == "stop"
        assert "No candidate gains" in decision.reason


def test_a_run_stops_when_nothing_is_left_to_grow(level):
    state = replace(STATE, sizes=replace(SIZES, frames=950))
    decision = decide(level, state, replace(RULES, grow=("data",)))
    assert decision.action == "stop"
    assert "Nothing is left to grow" in decision.reason


def test_trials_are_ranked_by_gain_per_flop_with_all_of_them_paid():
    cheap, dear = trial("depth", 0.001, flops=1e10), trial("width", 0.0015, flops=4e10)
    first, second = rank([dear, cheap], STATE, RULES)
    assert (first.trial, second.trial) == (cheap, dear)
    assert first.rate == pytest.approx(0.001 / 1e10)
    assert first.charged == pytest.approx(0.001 / 1e10 * 1e11 / (1e11 + 4e10))
    assert second.charged == pytest.approx(0.0015 / 4e10 * 1e11 / (1e11 + 1e10))
    assert rank([cheap], STATE, RULES)[0].charged == pytest.approx(0.001 / 1e10)


def test_while_training_on_gains_a_little_a_failed_trial_is_no_end(level):
    """None gains: go on, until the FLOPs are half as many again; then trials are made anew."""
    rules, trials = replace(RULES, worth=0.1), (trial("width", -0.001),)
    assert level.slope(1e12) > 0.1 * RULES.epsilon
    assert decide(level, replace(STATE, trials=trials), rules).action == "go on"
    for tried_at, action in ((0.7e12, "go on"), (0.6e12, "try"), (0.0, "try")):
        assert decide(level, replace(STATE, tried_at=tried_at), rules).action == action


def test_nothing_is_judged_until_the_flops_at_growth_are_many_times_as_many(level):
    for grown_at, action in ((0.26e12, "go on"), (0.24e12, "try")):
        assert decide(level, replace(STATE, grown_at=grown_at), replace(RULES, patience=4)).action == action


def test_trials_are_made_only_where_they_pay_back_within_the_budget(level):
    """Four of a ΔC each, and twice the FLOPs so far after them."""
    rules = replace(RULES, trial=1.0, payback=2.0)
    for left, action in ((2.39e12, "go on"), (2.41e12, "try")):
        assert decide(level, replace(STATE, spent=RULES.budget_flops - left), rules).action == action


def test_a_candidate_need_not_prove_within_a_trial_what_it_gains_later(level):
    within_noise = trial("width", -0.0011, noise=0.0007)
    assert decide(level, replace(STATE, trials=(within_noise,)), RULES).action == "scale up"


def test_sizes_grow_in_turn(level):
    """What has grown waits for the others."""
    asked = {
        (): ("width", "depth", "degree", "data"),
        ("degree",): ("width", "depth", "data"),
        ("degree", "depth", "data"): ("width",),
        ("degree", "depth", "data", "width"): ("width", "depth", "degree", "data"),
    }
    for grown, axes in asked.items():
        assert decide(level, replace(STATE, grown=grown), RULES).axes == axes


def test_what_a_step_of_would_cost_more_than_delta_does_not_grow(level):
    """A step of a model twice as wide costs up to 4 times as much, of one twice as deep twice as much."""
    state = replace(STATE, step_flops=RULES.delta_flops / 3)
    assert decide(level, state, RULES).axes == ("depth", "degree", "data")
    everything = decide(level, state, replace(RULES, choose="all", worth=0.1))
    assert everything.action == "go on"
    assert "Nothing is left to grow" in everything.reason


def test_the_noise_of_a_difference_is_that_of_paired_frames():
    """Of MAE over n frames: the standard error of the mean difference, by numpy; what both share does not count."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(1, 100, 50)
    gains = generator.normal(0.5, 0.1, 50)
    noise = paired_noise(hard.tolist(), (hard - gains).tolist())
    assert noise * hard.mean() == pytest.approx(gains.std(ddof=1) / 50**0.5, rel=1e-9)


def test_only_what_may_grow_is_a_candidate():
    assert list(candidates(SIZES, 950, RULES)) == ["width", "depth", "degree", "data"]
    assert list(candidates(SIZES, 500, RULES)) == ["width", "depth", "degree"]
    assert candidates(SIZES, 950, RULES)["data"].frames == 950
    assert candidates(SIZES, 5000, RULES)["data"].frames == 1000
    limited = replace(RULES, largest_channels=32, largest_layers=2, largest_lmax=2)
    assert list(candidates(SIZES, 950, limited)) == ["data"]
    assert list(candidates(SIZES, 950, replace(RULES, grow=("degree",)))) == ["degree"]


def test_the_published_rules_grow_width_depth_and_data_at_once(level):
    rules = Rules.published(1e13)
    assert rules.delta_flops == 5e11
    decision = decide(level, STATE, rules)
    assert decision.action == "scale up"
    assert decision.axes == ("width", "depth", "data")
    assert decision.reset_optimizer


def test_a_decision_is_ready_for_json_with_the_numbers_it_was_made_of(level):
    state = replace(STATE, trials=(trial("width", 0.001), trial("degree", 0.002)))
    written = json.loads(json.dumps(decide(level, state, RULES).as_dict(), allow_nan=False))
    numbers = written["numbers"]
    assert numbers["law"]["alpha"] == level.alpha
    assert numbers["gain"] == level.slope(1e12)
    assert numbers["epsilon"] == RULES.epsilon
    assert [each["trial"]["axis"] for each in numbers["ranked"]] == ["degree", "width"]
    assert numbers["state"]["spent"] == STATE.spent
    assert numbers["rules"]["delta_flops"] == RULES.delta_flops


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": 0.0}, "scaling.epsilon must be positive and finite, got 0.0"),
        ({"epsilon": -1e-15}, "scaling.epsilon must be"),
        ({"epsilon": float("nan")}, "scaling.epsilon must be"),
        ({"delta_flops": 0.0}, "scaling.delta_flops must be positive and finite, got 0.0"),
        ({"delta_flops": -1.0}, "scaling.delta_flops must be"),
        ({"budget_flops": 1e10}, r"scaling.budget_flops must be at least one delta_flops, 1e\+11, got 1"),
        ({"budget_flops": float("inf")}, "scaling.budget_flops must be positive and finite"),
        ({"k_w": 1.0}, "scaling.k_w must be greater than 1 and finite, got 1.0"),
        ({"k_d": 0.5}, "scaling.k_d must be"),
        ({"k_n": float("inf")}, "scaling.k_n must be"),
        ({"epsilon_unit": "meV"}, "scaling.epsilon_unit must be one of"),
        ({"target": -1.0}, "scaling.target must be 0 or more, got -1.0"),
        ({"grow": ()}, "scaling.grow must be some of"),
        ({"grow": ("radius",)}, "scaling.grow must be some of"),
        ({"k_h": 1.5}, "scaling.k_h must be a whole number of at least 2, got 1.5"),
        ({"trial": 0.0}, "scaling.trial must be positive"),
        ({"patience": 0.5}, "scaling.patience must be at least 1 and finite, got 0.5"),
        ({"payback": -1.0}, "scaling.payback must be 0 or more, got -1.0"),
        ({"choose": "best"}, "scaling.choose must be trials or all, got best"),
        ({"largest_channels": 0}, "scaling.largest_channels must be at least 1"),
        ({"largest_lmax": -1}, "scaling.largest_lmax must be 0 or more"),
        ({"confidence": 95.0}, "scaling.confidence must be between 0 and 1, got 95.0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        replace(RULES, **settings)


def test_a_factor_that_heads_do_not_divide_is_refused_before_it_is_needed(steep):
    for k_w, leads_to in ((1.3, "41.6"), (1.5, "48")):
        with pytest.raises(ConfigError, match=f"scaling.k_w must lead to channels that 32 heads divide.* {leads_to}"):
            decide(steep, STATE, replace(RULES, k_w=k_w))
    wide = replace(SIZES, channels=64)
    with pytest.raises(ConfigError, match=r"from 64, 1\.5 leads to 144"):  # the second growth, not the first
        candidates(wide, 950, replace(RULES, k_w=1.5))
    assert candidates(SIZES, 950, replace(RULES, k_w=1.5, grow=("depth",))).keys() == {"depth"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: replace(STATE, spent=0.0), "spent of the state must be positive"),
        (lambda: replace(STATE, compute=float("nan")), "compute of the state must be positive"),
        (lambda: replace(STATE, error=-0.01), "error of the state must be positive"),
        (lambda: replace(STATE, pool_frames=10), "pool_frames must be at least the 500 in use, got 10"),
        (lambda: replace(SIZES, layers=0), "layers and frames must be at least 1"),
        (lambda: replace(SIZES, heads=5), "heads must divide the channels, got 5 heads for 32 channels"),
        (lambda: replace(trial("width", 0.001), after=float("nan")), "after of the trial of width must be positive"),
        (lambda: replace(trial("width", 0.001), flops=0.0), "flops of the trial of width must be positive"),
        (lambda: replace(trial("width", 0.001), noise=-1.0), "noise of the trial of width must be 0 or more"),
    ],
)
def test_states_and_trials_that_cannot_be_are_refused(make, words):
    with pytest.raises(ScalingError, match=words):
        make()


def test_a_trial_of_another_state_is_refused():
    foreign = trial("width", 0.001, state=replace(STATE, sizes=replace(SIZES, channels=64)))
    with pytest.raises(ScalingError, match="the trial of width is not of this state"):
        rank([foreign], STATE, RULES)


def test_law_and_rules_need_neither_torch_nor_the_rest_of_the_drivers():
    probe = """
import sys, sdas.scaling.policy
print([name for name in sys.modules if name.split(".")[0] in ("torch", "scipy", "pydantic", "sdas_kernels")])
"""
    result = subprocess.run([sys.executable, "-P", "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
