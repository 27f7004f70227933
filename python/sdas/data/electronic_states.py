"""Charge and spin of structures, which the models do not know: told, and refused where they would be needed.

Of two structures of one composition that differ in charge or spin a model sees only the atoms. Trained on both, it
learns something between their energies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdas.data.errors import DataError
from sdas.data.label_names import plain_name

CHARGES = ("charge", "total_charge", "net_charge", "molecular_charge", "system_charge")
SPINS = ("spin", "multiplicity", "spin_multiplicity", "mult", "total_spin")
ATOMIC_CHARGES = ("initial_charges", "charges", "charge", "formal_charges")
WHOLE = 1e-3
"""Largest distance of a sum of atomic charges to the whole number that it means."""


def state_of(values: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """``charge`` and ``spin`` among named ``values``, as far as they are there.

    Without a total charge the atomic ones [n] give it, where they add up to a whole number.
    """
    state: dict[str, float] = {}
    summed: dict[str, float] = {}
    for name, value in values:
        plain = plain_name(name)
        kind = "charge" if plain in CHARGES else "spin" if plain in SPINS else None
        if kind is None and plain not in ATOMIC_CHARGES:
            continue
        try:
            array = np.asarray(value)
        except ValueError:  # nested lists of different lengths
            continue
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            continue
        if kind is not None and array.size == 1:
            state.setdefault(kind, float(array.reshape(())))
        elif plain in ATOMIC_CHARGES and array.ndim == 1 and array.size > 1:
            total = float(array.sum(dtype=np.float64))
            if abs(total - round(total)) < WHOLE:
                summed.setdefault("charge", float(round(total)))
    return {**summed, **state}


@dataclass(slots=True)
class ElectronicStates:
    """The charges and spins of a data set, which may lie in many files. frames: kind → value → number of frames."""

    frames: dict[str, Counter[float]] = field(default_factory=dict)
    _first: dict[tuple[Any, str], tuple[float, str]] = field(default_factory=dict)

    def add(self, composition: tuple[tuple[int, int], ...], state: Mapping[str, float], where: str) -> None:
        """Take up the ``state`` of a frame; raises :class:`DataError` if the composition came with another one."""
        for kind, value in state.items():
            self.frames.setdefault(kind, Counter())[value] += 1
            first, there = self._first.setdefault((composition, kind), (value, where))
            if abs(first - value) > WHOLE:
                raise DataError(
                    f"{where}: {kind} {value:g}, where {there} with the same atoms has {first:g}; the model does not "
                    f"know of {kind} and would give both one energy: keep the frames of each {kind} in files of their "
                    "own, and use one of them, or train a model for each"
                )

    def lines(self) -> list[str]:
        """What the data set has of charge and spin beyond neutral singlets, as lines of text."""
        usual = {"charge": {0.0}, "spin": {0.0, 1.0}}
        return [
            f"note: the model does not use the {kind}: "
            + ", ".join(f"{value:g} in {count} frames" for value, count in sorted(counts.items()))
            for kind, counts in self.frames.items()
            if len(counts) > 1 or not set(counts) <= usual[kind]
        ]
