"""Which of the values in an ASE ``Atoms`` are the labels: found by name, converted, refused where two disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.electronic_states import CHARGES, SPINS
from sdas.data.errors import DataError
from sdas.data.label_names import (
    PREDICTED,
    UNUSUAL,
    USUAL,
    is_free_energy,
    is_thermochemical,
    label_of,
    plain_name,
    unit_of,
)
from sdas.data.readers.declared_units import FileUnits
from sdas.data.readers.frame_marks import is_mark
from sdas.data.readers.options import ReadOptions, check_unit_of_virial, floats, one_float, stress_of_virial

AGREEMENT = {"energy": 1e-5, "forces": 1e-4, "stress": 1e-5}
"""Largest difference, eV, eV/Å and eV/Å³, between two values that are still the same label: the last digit of what
programs print (1e-6 Hartree, 1e-6 Hartree/bohr, 0.01 kbar), far below the error of any label."""
RELATIVE_AGREEMENT = 2.0**-22
"""The same relative to the largest value: rounding to float32, and a conversion of units after it."""
_QUANTITY = {"forces": "force"}


@dataclass(frozen=True, slots=True)
class Value:
    """A named value of a frame. kind: ``energy``, ``forces``, ``stress``, ``virial``, or None; tier: of the name."""

    name: str
    stored: Any
    kind: str | None
    tier: int = USUAL

    def fits(self, atoms: int) -> bool:
        """Whether its shape is that of a label of its kind."""
        try:
            array = np.asarray(self.stored)
        except ValueError:
            return False
        if array.dtype.kind not in "iuf":
            return False
        if self.kind == "forces":
            return array.shape == (atoms, 3)
        return array.size == 1 if self.kind == "energy" else array.size in (6, 9)


def values_of(atoms: Atoms) -> list[Value]:
    """What a calculator's stored results, ``info`` and ``arrays`` hold; of one name, the first of them.

    Forces of constrained atoms are the stored ones: ASE would give zeros through ``atoms.get_forces()``.
    """
    results = getattr(atoms.calc, "results", None) or {}
    arrays = {name: array for name, array in atoms.arrays.items() if name not in ("numbers", "positions")}
    names = {str(name) for table in (results, atoms.info, arrays) for name in table}
    gibbs = any(is_thermochemical(name) for name in names)
    values: dict[str, Value] = {}
    for table in (results, atoms.info, arrays):
        for name, stored in table.items():
            if stored is None or name in values:
                continue
            kind, tier = label_of(str(name)) or (None, USUAL)
            if is_free_energy(str(name)) and not gibbs:
                kind, tier = "energy", USUAL if table is results else UNUSUAL
            values[name] = Value(str(name), stored, kind, tier)
    return list(values.values())


@dataclass(slots=True)
class LabelFinder:
    """Finds labels in frame after frame of one file, and holds to the names found first."""

    options: ReadOptions
    chosen: dict[str, str] = field(default_factory=dict)

    def labels(self, values: list[Value], atoms: Atoms, units: FileUnits) -> dict[str, Any]:
        """``energy``, ``forces`` and ``stress`` [3, 3] among ``values``, in eV, eV/Å and eV/Å³, or None.

        A stress is looked for where all three axes are periodic, or where it was asked for by name. What is there and
        not used is noted in the options' notes.
        """
        used: set[str] = set()
        found = {
            "energy": self._label("energy", ("energy",), values, atoms, units, used),
            "forces": self._label("forces", ("forces",), values, atoms, units, used),
            "stress": None,
        }
        if atoms.pbc.all() or self.options.stress_key is not None:
            found["stress"] = self._label("stress", ("stress", "virial"), values, atoms, units, used)
        self._note_left(values, used, atoms)
        return found

    def _note_left(self, values: list[Value], used: set[str], atoms: Atoms) -> None:
        periodic = atoms.pbc.all()
        for value in values:
            if value.name in used or _told(value.name) or is_mark(value.name, self.options):
                continue
            if value.kind in ("stress", "virial") and not periodic:
                self.options.notes.remarks[f"{value.name} is not read where an axis is not periodic"] += 1
            else:
                self.options.notes.unused.add([(value.name, value.stored)], len(atoms))

    def _label(
        self, label: str, kinds: tuple[str, ...], values: list[Value], atoms: Atoms, units: FileUnits, used: set[str]
    ) -> Any:
        asked: str | None = getattr(self.options, f"{label}_key")
        if asked is None:
            possible = [value for value in values if value.kind in kinds]
        else:
            kind = "virial" if label == "stress" and "virial" in asked.lower() else label
            possible = [Value(asked, value.stored, kind) for value in values if value.name == asked]
        if not possible:
            return None
        if len(possible) > 1:
            possible = [value for value in possible if value.fits(len(atoms))] or possible
        best = min(value.tier for value in possible)
        possible = [value for value in possible if value.tier == best]
        names = sorted((value.name for value in possible), key=lambda name: name != label)
        chosen = self.chosen.setdefault(label, names[0])
        if chosen not in names:
            raise DataError(
                f"{units.where}: the {label} of earlier frames is called {chosen!r}, here only {' and '.join(names)} "
                f"is there; choose one with {advice(f'{label}_key', 'NAME')}"
            )
        converted = {value.name: self._converted(value, possible, atoms, units) for value in possible}
        if len(possible) > 1 and not _agree(label, list(converted.values())):
            hint = "; forces are the gradient of the free energy" if any(map(is_free_energy, names)) else ""
            shown = ", ".join(f"{value.name} = {_short(value.stored)}" for value in possible)
            raise DataError(
                f"{units.where}: {len(possible)} different values could be the {label}: {shown}{hint}; choose one "
                f"with {advice(f'{label}_key', 'NAME')}"
            )
        used.update(names)
        self.options.notes.found(label, chosen)
        if best == PREDICTED:
            self.options.notes.remarks[f"the {label} {chosen} are predictions by their name; there is no other"] += 1
        return converted[chosen]

    def _converted(self, value: Value, possible: list[Value], atoms: Atoms, units: FileUnits) -> Any:
        """``value`` in eV and Å; of a virial, the stress."""
        assert value.kind is not None
        factor = units.factor(_QUANTITY.get(value.kind, value.kind), value.name)
        if value.kind == "energy":
            return one_float(value.stored, factor, units.where)
        if value.kind == "forces":
            return floats(value.stored, factor, "forces", units.where)
        matrix = floats(three_by_three(value.stored, units.where), factor, "stress", units.where)
        if value.kind == "stress":
            return matrix
        if all(other.kind == "virial" for other in possible):
            check_unit_of_virial(value.name, units.asked, units.where)
        return stress_of_virial(matrix, atoms.cell.array * units.factor("length"), units.where)


@lru_cache(maxsize=4096)
def _told(name: str) -> bool:
    """Whether ``name`` is used elsewhere: a unit, a charge or a spin."""
    return unit_of(name) is not None or plain_name(name) in (*CHARGES, *SPINS)


def _agree(label: str, values: list[Any]) -> bool:
    first = np.asarray(values[0])
    scale = max(float(np.abs(value).max(initial=0.0)) for value in values)
    bound = AGREEMENT[label] + RELATIVE_AGREEMENT * scale
    return all(np.shape(v) == first.shape and bool((np.abs(v - first) <= bound).all()) for v in values[1:])


def _short(value: Any) -> str:
    array = np.asarray(value)
    return str(value) if array.ndim == 0 else f"{array.dtype.name} {list(array.shape)}"


def three_by_three(value: Any, where: str) -> NDArray[np.float64]:
    """A stress of 9 or [3, 3] numbers, or of ASE's 6 in Voigt order xx, yy, zz, yz, xz, xy, as [3, 3]."""
    try:
        stress = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: a stress has 6 or 9 numbers, got {_short(value)}") from None
    if stress.size == 6:
        return stress.reshape(6)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    if stress.size == 9:
        return stress.reshape(3, 3)
    raise DataError(f"{where}: a stress has 6 or 9 numbers, got shape {list(stress.shape)}")
