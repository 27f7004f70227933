"""One labelled structure, and the checks that it must pass before anything learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import ReadingOptions, advice
from sdas.data.errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LABELS = ("energy", "forces", "stress")
MAX_ATOMIC_NUMBER = 118
MIN_CELL_SHAPE = 1e-6
"""Smallest volume of the cell over the product of its three lengths that still counts as three dimensions."""
MAX_STRESS_ASYMMETRY = 1e-4
"""Largest |σ − σᵀ| in eV/Å³ that is rounding rather than a mistake."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One structure of n atoms with the labels that are known.

    numbers: int64 [n], atomic numbers. positions: float64 [n, 3], Å. cell: float64 [3, 3], Å, rows are the lattice
    vectors, or None; it means something only along periodic axes. pbc: bool [3]. energy: eV, or None. forces:
    float64 [n, 3], eV/Å, or None. stress: float64 [3, 3], eV/Å³, or None, with ASE's sign: (∂E/∂strain) / volume.
    source: where it came from, such as ``water.xyz: frame 12``. weight: of its errors in the loss. config_type: the
    name of the kind of structures that it belongs to, such as ``IsolatedAtom``, or None. charge: total charge in e,
    spin: multiplicity 2S + 1, or None where nothing says.

    Making one checks shapes and dtypes and raises :class:`DataError`; :func:`check_frame` checks the values.
    Arrays may be read-only views of a file.
    """

    numbers: IntArray
    positions: FloatArray
    cell: FloatArray | None
    pbc: BoolArray
    energy: float | None
    forces: FloatArray | None
    stress: FloatArray | None
    source: str
    weight: float = 1.0
    config_type: str | None = None
    charge: float | None = None
    spin: float | None = None

    def __post_init__(self) -> None:
        n = self.numbers.shape[0] if self.numbers.ndim == 1 else -1
        if n < 1:
            raise DataError(f"{self.source}: numbers must have shape [n] with n >= 1, got {list(self.numbers.shape)}")
        self._check("numbers", self.numbers, (n,), np.int64)
        self._check("positions", self.positions, (n, 3), np.float64)
        self._check("pbc", self.pbc, (3,), np.bool_)
        if self.cell is not None:
            self._check("cell", self.cell, (3, 3), np.float64)
        if self.forces is not None:
            self._check("forces", self.forces, (n, 3), np.float64)
        if self.stress is not None:
            self._check("stress", self.stress, (3, 3), np.float64)

    def _check(self, name: str, value: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
        if value.shape != shape:
            raise DataError(f"{self.source}: {name} must have shape {list(shape)}, got {list(value.shape)}")
        if value.dtype != dtype:
            raise DataError(f"{self.source}: {name} must be {np.dtype(dtype).name}, got {value.dtype.name}")

    def __len__(self) -> int:
        """The number of atoms."""
        return int(self.numbers.shape[0])

    @property
    def composition(self) -> tuple[tuple[int, int], ...]:
        """(atomic number, count) pairs in the order of atomic number: equal for equal chemical formulas."""
        elements, counts = np.unique(self.numbers, return_counts=True)
        return tuple(zip(elements.tolist(), counts.tolist(), strict=True))

    @property
    def state(self) -> dict[str, float]:
        """Charge and spin by name, as far as they are known."""
        known = {"charge": self.charge, "spin": self.spin}
        return {kind: value for kind, value in known.items() if value is not None}

    @property
    def volume(self) -> float | None:
        """Volume of the cell in Å³, or None without a cell."""
        return None if self.cell is None else float(abs(np.linalg.det(self.cell)))


def check_frame(frame: Frame, require: Sequence[str] = ()) -> Frame:
    """Return ``frame`` if its values can be used; otherwise raise :class:`DataError` naming the frame and the fault.

    Refused: NaN or infinity in positions, cell or any label that is there; atomic numbers outside 1..118; periodic
    axes without a cell or with a singular one; a stress that is not symmetric, or without three periodic axes; a
    weight that is negative or not finite; a label named in ``require`` (of ``energy``, ``forces``, ``stress``) that is
    missing.
    """
    where = frame.source
    bad = (frame.numbers < 1) | (frame.numbers > MAX_ATOMIC_NUMBER)
    if bad.any():
        atom = int(np.argmax(bad))
        raise DataError(f"{where}: atom {atom} has atomic number {frame.numbers[atom]}, outside 1..{MAX_ATOMIC_NUMBER}")
    _check_finite(where, "positions", frame.positions)
    _check_cell(frame)
    if not 0 <= frame.weight < np.inf:
        raise DataError(f"{where}: weight must be a number that is not negative, got {frame.weight}")
    for label in require:
        if label not in LABELS:
            raise ValueError(f"require names labels among {LABELS}, got {label!r}")
        if getattr(frame, label) is None:
            raise DataError(
                f"{where}: no {label}, but {' and '.join(require)} are required of every frame; name it by "
                f"{advice(f'{label}_key', 'NAME')}, or leave such frames out by {advice('skip', 'incomplete')}"
            )
    if frame.energy is not None and not np.isfinite(frame.energy):
        raise DataError(f"{where}: energy is {frame.energy}")
    if frame.forces is not None:
        _check_finite(where, "forces", frame.forces)
    if frame.stress is not None:
        _check_finite(where, "stress", frame.stress)
        if not frame.pbc.all():
            raise DataError(f"{where}: a stress is given but the frame is not periodic along all three axes")
        if np.abs(frame.stress - frame.stress.T).max() > MAX_STRESS_ASYMMETRY:
            raise DataError(f"{where}: stress is not symmetric")
    return frame


def check_labelled(frame: Frame, asked: ReadingOptions | None = None) -> Frame:
    """Return ``frame`` if it has a label; otherwise raise :class:`DataError` with the names that were ``asked`` for."""
    if all(getattr(frame, label) is None for label in LABELS):
        keys = [key for label in LABELS if asked and (key := getattr(asked, f"{label}_key"))]
        called = f" called {' or '.join(keys)}" if keys else ""
        raise DataError(
            f"{frame.source}: no energy, forces or stress{called}; 'sdas data info' lists what a file holds: name one "
            f"by {advice('energy_key', 'NAME')}, or leave such frames out by {advice('skip', 'incomplete')}"
        )
    return frame


def _check_finite(where: str, name: str, values: FloatArray) -> None:
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=-1)))
        raise DataError(f"{where}: {name} hold NaN or infinity, first in row {row}: {values[row].tolist()}")


def _check_cell(frame: Frame) -> None:
    if frame.cell is None:
        if frame.pbc.any():
            raise DataError(f"{frame.source}: periodic along {_axes(frame.pbc)} but no cell is given")
        return
    _check_finite(frame.source, "cell", frame.cell)
    if frame.pbc.any():
        lengths = np.linalg.norm(frame.cell, axis=1)
        product = float(np.prod(lengths))
        if product == 0 or abs(np.linalg.det(frame.cell)) < MIN_CELL_SHAPE * product:
            raise DataError(
                f"{frame.source}: periodic along {_axes(frame.pbc)} but the cell is singular: {frame.cell.tolist()}"
            )


def _axes(pbc: BoolArray) -> str:
    return "".join(axis for axis, periodic in zip("abc", pbc, strict=True) if periodic)
