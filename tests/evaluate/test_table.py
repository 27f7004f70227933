"""The table says what was found, and no more than can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdas.evaluate import Evaluation
from sdas.evaluate.table import MOST_ROWS, rows_of, table


@pytest.fixture
def evaluation() -> Evaluation:
    """Two frames of one atom: energies of one are off by 2 meV, forces of the other by 30 meV/Å along an axis."""
    zeros, unknown = np.zeros((2, 3)), np.full(2, np.nan)
    made = Evaluation(
        {}, {}, np.array([1, 1]), np.array([0, 1, 2]),
        energies=np.array([0.002, 5.0]), reference_energies=np.array([0.0, np.nan]),
        forces=np.array([[0.0, 0, 0], [0.03, 0, 0]]), reference_forces=np.stack([unknown.repeat(2)[:3], zeros[0]]),
        stresses=None, reference_stresses=None, wall_s=1.0, model_fingerprint=None,
    )  # fmt: skip
    whole = made.by(["all", "all"])["all"]
    metrics = {key: value for key, value in whole.items() if key not in ("n_frames", "n_atoms")}
    return replace(made, metrics=metrics, by_file=made.by(["energies.xyz", "forces.xyz"]))


def test_a_dash_stands_for_what_a_file_has_not(evaluation):
    assert [line.split() for line in table(evaluation).splitlines()] == [
        ["frames", "energy,", "meV/atom", "forces,", "meV/Å"],
        ["MAE", "RMSE", "MAE", "RMSE"],
        ["energies.xyz", "1", "2.00", "2.00", "–", "–"],
        ["forces.xyz", "1", "–", "–", "10.00", "17.32"],
        ["all", "2", "2.00", "2.00", "10.00", "17.32"],
    ]


def test_one_file_has_no_row_of_its_own_and_many_are_cut(evaluation):
    (one,) = evaluation.by(["x", "x"]).items()
    assert list(rows_of(replace(evaluation, by_file=dict([one])))) == ["all"]
    many = {f"{k}.xyz": one[1] for k in range(MOST_ROWS + 3)}
    assert list(rows_of(replace(evaluation, by_file=many)))[-2:] == ["… and 3 more in evaluation.json", "all"]
    assert table(replace(evaluation, by_file=many)).count(".xyz") == MOST_ROWS
