"""Small synthetic structures, and the real data sets where they are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdas.data import Frame

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a file among the real data sets; skips the test, saying which one is missing."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"real data set {name} is not at {REAL_DATA}")
        return path

    return find


@pytest.fixture
def water() -> Callable[..., Frame]:
    """Makes frames of one water molecule with random displacements and labels; arguments replace fields."""

    def make(index: int = 0, **fields: object) -> Frame:
        rng = np.random.default_rng(index)
        positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        values: dict[str, object] = {
            "numbers": np.array([8, 1, 1]),
            "positions": positions + 0.02 * rng.normal(size=(3, 3)),
            "cell": None,
            "pbc": np.zeros(3, dtype=bool),
            "energy": float(rng.normal()),
            "forces": rng.normal(size=(3, 3)),
            "stress": None,
            "source": f"water: frame {index}",
        }
        return Frame(**{**values, **fields})  # type: ignore[arg-type]

    return make


def assert_same_frame(a: Frame, b: Frame) -> None:
    """Every field of ``a`` and ``b`` agrees bit for bit, the source left out."""
    marks = ("weight", "config_type", "charge", "spin")
    for name in ("numbers", "positions", "cell", "pbc", "energy", "forces", "stress", *marks):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None), name
        if first is not None:
            np.testing.assert_array_equal(first, second, err_msg=name)


@pytest.fixture
def same_frame() -> Callable[[Frame, Frame], None]:
    """The assertion that two frames agree bit for bit."""
    return assert_same_frame
