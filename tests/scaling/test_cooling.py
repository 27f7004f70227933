"""The multi-power law: what a cool-down brings."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sdas.errors import ScalingError
from sdas.scaling.cooling import CoolDown, fit_cooled
from sdas.scaling.history import RUN, history_of
from sdas.scaling.law import fit
from sdas.scaling.plan import Plan
from sdas.scaling.rules import Rules

E_INF, A, ALPHA = 0.010, 0.012, 0.4  # at 1e12 FLOPs
B, KAPPA, BETA, GAMMA = 0.006, 3e-11, 0.6, 0.5


def steady(compute):
    return E_INF + A * (compute / 1e12) ** -ALPHA


def by_steps(end, cool_down, steps=20_000):
    """As the paper has it: a sum over steps, each with its rate."""
    size = end / steps
    rates = np.array([float(cool_down.rate((k + 0.5) * size)) for k in range(steps)])
    since = np.cumsum((rates * size)[::-1])[::-1]
    drops = np.diff(rates, prepend=1.0) * -1
    falls = drops > 0
    gains = 1 - (1 + KAPPA * since[falls] * rates[falls] ** -GAMMA) ** -BETA
    return steady(np.sum(rates * size)) - B * np.sum(drops[falls] * gains)


@pytest.fixture(scope="module")
def law():
    compute = np.geomspace(2e10, 1e12, 40)
    return fit(compute, steady(compute))


@pytest.fixture(scope="module")
def cooled(law):
    ends = np.geomspace(1e11, 1e12, 5)
    downs = [CoolDown(0.8 * end, 0.2 * end) for end in ends]
    return fit_cooled(law, ends, [by_steps(*pair) for pair in zip(ends, downs, strict=True)], downs)


@pytest.mark.parametrize(("end", "part"), [(5e11, 0.2), (8e11, 0.5), (4.5e11, 0.2)])
def test_the_integral_is_the_sum_over_steps(law, end, part):
    """Of a whole cool-down, and of one that has run halfway."""
    down = CoolDown((1 - part) * end if end != 4.5e11 else 4e11, part * end if end != 4.5e11 else 1e11)
    found = steady(down.summed(end)) - B * down.fallen(end, KAPPA, BETA)
    assert found == pytest.approx(by_steps(end, down), rel=2e-4)


def test_before_the_rate_falls_it_is_the_law(cooled, law):
    down = CoolDown(5e11, 1e11)
    assert cooled.predict(3e11, down) == law.predict(3e11)
    assert cooled.predict(5e11, down) == law.predict(5e11)


def test_it_tells_longer_runs_and_other_cool_downs(cooled):
    """Ten times the FLOPs that were seen in cool-downs of the shortest; half the cool-down; and halfway through one."""
    for end, down in ((2e12, CoolDown(1.6e12, 4e11)), (1e12, CoolDown(9e11, 1e11)), (9e11, CoolDown(8e11, 2e11))):
        assert cooled.predict(end, down) == pytest.approx(by_steps(end, down), rel=0.01)
    assert cooled.scatter < 0.003


def test_where_cooling_brings_nothing_it_adds_nothing(law):
    ends = [4e11, 8e11]
    downs = [CoolDown(0.8 * end, 0.2 * end) for end in ends]
    worse = [law.predict(float(down.summed(end))) * 1.01 for end, down in zip(ends, downs, strict=True)]
    assert fit_cooled(law, ends, worse, downs).b == 0


def test_bad_input(law, cooled):
    with pytest.raises(ScalingError, match="one length, got 2, 1 and 1"):
        fit_cooled(law, [1e11, 2e11], [0.02], [CoolDown(8e10, 2e10)])
    with pytest.raises(ScalingError, match="lists of one length, got 0, 0 and 0"):
        fit_cooled(law, [], [], [])
    with pytest.raises(ScalingError, match="a start and a length above zero"):
        CoolDown(1e11, 0.0)
    with pytest.raises(ScalingError, match="positive and finite"):
        fit_cooled(law, [1e11], [float("nan")], [CoolDown(8e10, 2e10)])


def cooled_run(down, floor=0.0):
    """The history of a run with four points of one cool-down; `floor` is taken off every error."""
    lines = [{"kind": "started", "rules": {"patience": 1.0}, "seed": 0}]
    for compute in np.geomspace(2e10, 8e11, 40):
        lines.append({"kind": "validated", "flops": compute, "error": steady(compute) - floor})
    lines.append({"kind": "cooling", "flops": down.start, "end": down.start + down.length})
    ends = (8.5e11, 9e11, 9.5e11, 1e12)
    lines += [{"kind": "validated", "flops": at, "error": by_steps(at, down) - floor} for at in ends]
    return history_of({"spent": line.get("flops"), "parameters": 1, "folder": RUN} | line for line in lines)


def test_the_history_of_a_run_tells_what_its_cool_down_brought():
    """Then a run of three times the FLOPs."""
    found = cooled_run(CoolDown(8e11, 2e11)).cooled_law()
    assert found is not None
    assert found.points == 4
    longer = CoolDown(2.4e12, 6e11)
    assert found.predict(3e12, longer) == pytest.approx(by_steps(3e12, longer), rel=0.02)


@pytest.mark.parametrize(
    ("budget", "floor", "told"),
    [
        (3e12, 0.0, "and after it at 1[0-9.]+ meV/Å, by the multi-power law of 4 cooled points"),
        (1e17, E_INF, "too far"),
    ],
)
def test_a_plan_tells_how_a_larger_budget_ends_or_that_nothing_can_be_told(budget, floor, told):
    """With no floor a power law falls below what a cool-down brings, where the multi-power law has no error left."""
    rules = Rules(0.8 * budget, 1e11, patience=1.0)
    planned = Plan(rules, budget, 8, [], 4, cooled_run(CoolDown(8e11, 2e11), floor))
    assert re.search(told, planned.text())
