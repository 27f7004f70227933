import numpy as np
import pytest

from sdas.evaluate import energy_metrics, force_metrics, force_metrics_by_element


def test_energy_errors_by_hand():
    got = energy_metrics(np.array([1.003, 2.0]), np.array([1.0, 2.001]), np.array([3, 2]))
    assert got == pytest.approx(
        {
            "energy_mae_mev": 2.0,
            "energy_rmse_mev": 5.0**0.5,
            "energy_max_mev": 3.0,
            "energy_mean_error_mev": 1.0,
            "energy_mae_mev_per_atom": 0.75,
            "energy_rmse_mev_per_atom": (1.25 / 2) ** 0.5,
        }
    )


def test_force_errors_by_hand():
    reference = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]])
    predicted = np.array([[1.0, 0, 0.006], [0.0, -2.0, 0], [0, 0.003, 0]])
    got = force_metrics(predicted, reference)
    assert got["force_mae_mev_per_ang"] == pytest.approx((6 + 4000 + 3) / 9)
    assert got["force_rmse_mev_per_ang"] == pytest.approx(((36 + 16e6 + 9) / 9) ** 0.5)
    assert got["force_max_mev_per_ang"] == pytest.approx(4000)
    assert got["force_cosine"] == pytest.approx((1 / (1 + 0.006**2) ** 0.5 - 1) / 2)


def test_direction_needs_a_force():
    still = np.zeros((2, 3))
    assert force_metrics(still + 1, still)["force_cosine"] is None
    assert force_metrics(still, still + 1)["force_cosine"] == 0


def test_each_element_has_its_own_errors():
    numbers = np.array([8, 1, 1])
    error = np.array([[0.004, 0, 0], [0, 0.001, 0], [0, 0, -0.003]])
    table = force_metrics_by_element(np.ones((3, 3)) + error, np.ones((3, 3)), numbers)
    assert list(table) == ["H", "O"]
    assert table["H"]["n_atoms"] == 2
    assert table["H"]["force_mae_mev_per_ang"] == pytest.approx(4 / 6)
    assert table["H"]["force_max_mev_per_ang"] == pytest.approx(3)
    assert table["O"]["force_rmse_mev_per_ang"] == pytest.approx((16 / 3) ** 0.5)
