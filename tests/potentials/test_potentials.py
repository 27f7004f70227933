"""The shipped potentials: they load, are as good as their cards say, and are the same through the calculator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms

import sdas
from sdas import potentials
from sdas.data import Frame, read_frames, sample
from sdas.errors import SdasError
from sdas.evaluate import evaluate
from sdas.md import SDASCalculator
from sdas.predict import predict

MOST_BYTES = 1_000_000


@pytest.fixture(params=potentials.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Of each potential in turn."""
    return str(request.param)


def test_a_frame_that_was_not_trained_on_is_predicted_within_the_stated_error(name: str) -> None:
    stated, frame = potentials.card(name)["errors_on_1000_test_frames"], potentials.frame(name)
    found = predict(sdas.pretrained(name), [frame])
    assert frame.forces is not None
    assert frame.energy is not None
    # of any distribution at most one in 25 lies beyond five root mean squares (Chebyshev)
    assert 1e3 * np.sqrt(np.square(found.forces - frame.forces).mean()) < 5 * stated["force_rmse_mev_per_ang"]
    assert 1e3 * abs(found.energy[0] - frame.energy) < 5 * stated["energy_rmse_mev"]


def test_a_calculator_gives_the_same_energy_and_forces(name: str) -> None:
    frame = potentials.frame(name)
    atoms = Atoms(frame.numbers, frame.positions, calculator=SDASCalculator(sdas.pretrained(name)))
    found = predict(sdas.pretrained(name).double(), [frame])
    assert atoms.get_potential_energy() == pytest.approx(found.energy[0], abs=1e-8)
    np.testing.assert_allclose(atoms.get_forces(), found.forces, atol=1e-9)


def test_the_card_of_ethanol_is_true_on_the_shipped_test_frames() -> None:
    frames = list(itertools.islice(read_frames(sample("ethanol")[1]), 200))
    found = evaluate(sdas.pretrained("ethanol"), frames, 50).metrics["force_mae_mev_per_ang"]
    stated = potentials.card("ethanol")["errors_on_1000_test_frames"]["force_mae_mev_per_ang"]
    assert found == pytest.approx(stated, rel=0.1)


def test_the_frame_of_ethanol_is_a_test_frame() -> None:
    first: Frame = next(iter(read_frames(sample("ethanol")[1])))
    shipped = potentials.frame("ethanol")
    np.testing.assert_allclose(shipped.positions, first.positions, atol=1e-7)
    np.testing.assert_allclose(shipped.forces, first.forces, atol=1e-7)


def test_a_potential_is_small_and_its_table_says_its_error(name: str) -> None:
    assert sum(file.stat().st_size for file in potentials.folder(name).iterdir()) < MOST_BYTES
    error = potentials.card(name)["errors_on_1000_test_frames"]["force_mae_mev_per_ang"]
    row = next(line for line in (potentials.FOLDER / "README.md").read_text().splitlines() if f"| {name} |" in line)
    assert f"| {error:.2f} |" in row


def test_a_name_that_is_unknown_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(SdasError, match=r"benzene.*aspirin, ethanol"):
        sdas.pretrained("benzene")
