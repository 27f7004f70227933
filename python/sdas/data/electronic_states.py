"""Total charge and spin of structures: found in files, told, and checked where a model meets them.

The charge is in units of e. The spin is the multiplicity 2S + 1, as OMol25 and the models trained on it have it.

Of two structures of one composition that differ in charge or spin, a model without `charge_spin` sees only the atoms.
Trained on both, it learns something between their energies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.frame import Frame, IntArray
from sdas.data.label_names import plain_name

CHARGES = ("charge", "total_charge", "net_charge", "molecular_charge", "system_charge")
SPINS = ("spin", "multiplicity", "spin_multiplicity", "mult", "total_spin")
ATOMIC_CHARGES = ("initial_charges", "charges", "charge", "formal_charges")
WHOLE = 1e-3
"""Largest distance of a sum of atomic charges to the whole number that it means."""


def state_of(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
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
        elif plain in ATOMIC_CHARGES and array.ndim == 1 and array.size > 0:
            total = float(array.sum(dtype=np.float64))
            if abs(total - round(total)) < WHOLE:
                summed.setdefault("charge", float(round(total)))
    return {**summed, **state}


def state_of_atoms(atoms: Atoms) -> dict[str, float]:
    """The same of what ASE's ``Atoms`` carry in ``info``, and of their initial charges."""
    charges = [(name, atoms.arrays[name]) for name in ("initial_charges",) if name in atoms.arrays]
    return state_of([*atoms.info.items(), *charges])


def may_be_states(name: str, shape: tuple[int, ...] | None, count: int) -> bool:
    """Whether an array of this name and shape may be a charge or a spin: one for ``count`` frames, or for each."""
    return plain_name(name) in (*CHARGES, *SPINS) and shape in ((), (1,), (count,), (count, 1))


def states_of_frames(arrays: Iterable[tuple[str, NDArray[Any]]], count: int) -> dict[str, NDArray[Any]]:
    """``charge`` and ``spin`` of every frame [count], as far as they are among arrays that :func:`may_be_states`."""
    found: dict[str, NDArray[Any]] = {}
    for name, array in arrays:
        if array.dtype.kind in "iuf" and np.isfinite(array).all():
            kind = "charge" if plain_name(name) in CHARGES else "spin"
            found.setdefault(kind, np.broadcast_to(array.reshape(-1), (count,)))
    return found


@dataclass(slots=True)
class ElectronicStates:
    """The charges and spins of a data set, which may lie in many files. frames: kind → value → number of frames."""

    frames: dict[str, Counter[float]] = field(default_factory=dict)

    def add(self, frame: Frame) -> None:
        """Count what a frame states."""
        for kind, value in frame.state.items():
            self.frames.setdefault(kind, Counter())[value] += 1

    def lines(self) -> list[str]:
        """What the data set has of charge and spin beyond neutral singlets, as lines of text."""
        usual = {"charge": {0.0}, "spin": {0.0, 1.0}}
        return [
            f"note: {kind} "
            + ", ".join(f"{value:g} in {count} frames" for value, count in sorted(counts.items()))
            + ", which a model uses only with model.charge_spin=true"
            for kind, counts in self.frames.items()
            if len(counts) > 1 or not set(counts) <= usual[kind]
        ]


def one_state_each(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames as they come, for a model that does not know of charge and spin.

    Raises :class:`DataError` for one that differs in them from an earlier one of the same composition.
    """
    first: dict[tuple[Any, str], tuple[float, str]] = {}
    for frame in frames:
        state = frame.state
        composition = frame.composition if state else ()
        for kind, value in state.items():
            before, there = first.setdefault((composition, kind), (value, frame.source))
            if abs(before - value) > WHOLE:
                raise DataError(
                    f"{frame.source}: {kind} {value:g}, where {there} with the same atoms has {before:g}; a model "
                    f"without model.charge_spin=true does not know of {kind} and gives both one energy: train with it, "
                    f"or keep the frames of each {kind} in files of their own and train a model for each"
                )
        yield frame


def checked_state(state: Mapping[str, float], numbers: IntArray, where: str) -> Mapping[str, Any]:
    """The ``state`` of a structure for a graph; raises :class:`DataError` for a spin that its electrons cannot have."""
    spin = state.get("spin")
    if spin is None:
        return state
    electrons = float(numbers.sum()) - state.get("charge", 0.0)
    whole = abs(electrons - round(electrons)) < WHOLE
    if spin < 1 or spin != round(spin) or (whole and (round(electrons) + round(spin)) % 2 == 0):
        fitting = f"; of {round(electrons)} electrons it is {'odd' if round(electrons) % 2 == 0 else 'even'}" * whole
        raise DataError(
            f"{where}: spin {spin:g} is no multiplicity 2S + 1 of this structure{fitting}. Where a file gives the "
            "number of unpaired electrons, or S, write the multiplicity there; where it knows no spin, leave it out"
        )
    return state
