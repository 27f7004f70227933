"""Curves of active learning: what a rule saves, by hand, and that it is compared with random of its own kind."""

import pytest

pytest.importorskip("record", reason="the tests stand alone, without bench/")

from active import retrospective


def cell(rule, errors, seed=0, **changes):
    settings = {"set": "3bpa", "rule": rule, "seed": seed, "uncertainty": "ensemble", "features": "last-layer"}
    curves = {f"force_{measure}_mev_per_ang": errors for measure in ("mae", "rmse")}
    return {**settings, "models": 3, "labels": [50, 75, 100], **curves, **changes}


def test_labels_are_counted_to_the_last_error_of_random():
    """Random ends at 40 with 50 new labels. From 60 to 30 with 25 labels, 40 is passed at two thirds of them."""
    cells = [cell("random", [80, 60, 40]), cell("topk", [80, 60, 30]), cell("lcmd", [80, 70, 50])]
    rows = {row["selection"]: row for row in retrospective.savings(cells)}
    assert rows["topk"]["mae"] == [pytest.approx(1 - (25 + 25 * 20 / 30) / 50, abs=1e-3)]
    assert rows["lcmd"]["rmse"] == [None]
    assert retrospective.labels_until(cells[0], "mae", 70) == pytest.approx(12.5)


def test_a_source_is_compared_with_random_of_its_own_and_by_seed():
    one = {"models": 1, "uncertainty": "dropout"}
    cells = [
        cell("random", [80, 60, 40]), cell("random", [90, 70, 50], seed=1), cell("random", [90, 80, 70], **one),
        cell("topk", [90, 70, 60], **one), cell("lcmd", [90, 50, 40], seed=1, features="gradient"),
    ]  # fmt: skip
    rows = {(row["panel"], row["selection"]): row["mae"] for row in retrospective.savings(cells)}
    assert rows == {("3bpa", "lcmd, gradient"): [0.5], ("3bpa, one model", "topk, dropout"): [0.5]}
