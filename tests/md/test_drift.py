import numpy as np
import pytest

from sdas.md import energy_drift


def test_slope_and_rest_in_mev_per_atom():
    time_fs = np.arange(0.0, 1001.0, 10.0)
    ripple = 0.004 * (-1.0) ** np.arange(len(time_fs))
    drift = energy_drift(time_fs, 5.0 + 0.02 * time_fs / 1000 + ripple, n_atoms=4)
    assert drift.drift_mev_per_atom_per_ps == pytest.approx(5.0, abs=0.1)
    assert drift.fluctuation_mev_per_atom == pytest.approx(1.0, abs=0.01)


def test_the_first_tenth_is_left_out():
    time_fs = np.arange(0.0, 1001.0, 10.0)
    energy = np.where(time_fs < 100, 50.0, 0.0)
    drift = energy_drift(time_fs, energy, n_atoms=1)
    assert drift.drift_mev_per_atom_per_ps == 0
    assert (drift.from_ps, drift.to_ps) == (0.1, 1.0)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_too_few_points_have_no_drift(points):
    assert energy_drift(np.arange(points), np.ones(points), n_atoms=2) is None
