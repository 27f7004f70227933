"""A frame that cannot be learned from is refused, by an error that names it."""

import numpy as np
import pytest

from sdas.data import DataError, check_frame

CUBE = 5.0 * np.eye(3)
PERIODIC = np.ones(3, dtype=bool)


def test_a_sound_frame_passes_unchanged(water):
    frame = water(cell=CUBE, pbc=PERIODIC, stress=np.eye(3))
    assert check_frame(frame, ("energy", "forces", "stress")) is frame
    assert len(frame) == 3
    assert frame.composition == ((1, 2), (8, 1))
    assert frame.volume == pytest.approx(125.0)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"positions": np.zeros((2, 3))}, "positions must have shape"),
        ({"positions": np.zeros((3, 3), dtype=np.float32)}, "positions must be float64"),
        ({"forces": np.zeros((3, 2))}, "forces must have shape"),
        ({"cell": np.zeros(3)}, "cell must have shape"),
        ({"stress": np.zeros(6)}, "stress must have shape"),
        ({"pbc": np.zeros(2, dtype=bool)}, "pbc must have shape"),
        ({"numbers": np.zeros(0, dtype=np.int64)}, "n >= 1"),
    ],
)
def test_wrong_shapes_are_refused_when_made(water, fields, complaint):
    with pytest.raises(DataError, match=f"water: frame 7: .*{complaint}|water: frame 7: {complaint}"):
        water(7, **fields)


def _with(value, row=1):
    array = np.zeros((3, 3))
    array[row, 0] = value
    return array


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"positions": _with(np.nan)}, "positions hold NaN or infinity, first in row 1"),
        ({"forces": _with(np.inf, 2)}, "forces hold NaN or infinity, first in row 2"),
        ({"energy": float("nan")}, "energy is nan"),
        ({"numbers": np.array([8, 1, 0])}, "atom 2 has atomic number 0"),
        ({"numbers": np.array([8, 119, 1])}, "atom 1 has atomic number 119"),
        ({"pbc": PERIODIC}, "no cell is given"),
        ({"pbc": PERIODIC, "cell": np.ones((3, 3))}, "the cell is singular"),
        ({"pbc": PERIODIC, "cell": np.diag([5.0, 5.0, 0.0])}, "the cell is singular"),
        ({"pbc": PERIODIC, "cell": _with(np.nan)}, "cell hold NaN"),
        ({"stress": np.eye(3)}, "not periodic along all three axes"),
        ({"pbc": PERIODIC, "cell": CUBE, "stress": _with(1.0)}, "stress is not symmetric"),
        ({"pbc": PERIODIC, "cell": CUBE, "stress": np.full((3, 3), np.nan)}, "stress hold NaN"),
    ],
)
def test_wrong_values_are_refused_by_name(water, fields, complaint):
    with pytest.raises(DataError, match=f"water: frame 7: .*{complaint}|water: frame 7: {complaint}"):
        check_frame(water(7, **fields))


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_a_missing_label_is_an_error_only_where_required(water, label):
    frame = water(3, **{label: None})
    check_frame(frame)
    with pytest.raises(DataError, match=f"water: frame 3: no {label}"):
        check_frame(frame, (label,))


def test_an_unknown_required_label_is_a_mistake_of_the_caller(water):
    with pytest.raises(ValueError, match="require names labels"):
        check_frame(water(), ("dipole",))
