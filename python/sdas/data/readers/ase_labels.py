"""Which of the values in an ASE ``Atoms`` are the labels: found by name, refused where two names disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from sdas.data.errors import DataError
from sdas.data.readers.options import ReadOptions
from sdas.data.units import Units, energy_factor, force_factor, length_factor, stress_factor
from sdas.reading_options import advice

ENERGY_KEYS = (
    "energy",
    "free_energy",
    "REF_energy",
    "ref_energy",
    "DFT_energy",
    "dft_energy",
    "energy_dft",
    "total_energy",
    "Energy",
    "TotEnergy",
)
FORCES_KEYS = ("forces", "force", "REF_forces", "ref_forces", "DFT_forces", "dft_forces", "forces_dft", "Forces")
STRESS_KEYS = ("stress", "REF_stress", "ref_stress", "DFT_stress", "dft_stress", "virial", "virials", "REF_virial")
AGREEMENT = 1e-9
"""Largest relative difference between two values under different names that are still the same label."""


def values_under(atoms: Atoms, keys: tuple[str, ...]) -> dict[str, Any]:
    """Name → value for those of ``keys`` that a calculator's stored results, ``info`` or ``arrays`` hold.

    Forces of constrained atoms are the stored ones: ASE would give zeros through ``atoms.get_forces()``.
    """
    results = getattr(atoms.calc, "results", None) or {}
    found: dict[str, Any] = {}
    for key in keys:
        for place in (results, atoms.info, atoms.arrays):
            if place.get(key) is not None:
                found.setdefault(key, place[key])
    return found


@dataclass(slots=True)
class LabelFinder:
    """Finds labels in frame after frame of one file, and holds to the names found first."""

    options: ReadOptions
    chosen: dict[str, str] = field(default_factory=dict)

    def energy(self, atoms: Atoms, where: str) -> Any:
        """The energy as stored, or None."""
        return self._find(atoms, where, "energy", ENERGY_KEYS, self.options.energy_key)

    def forces(self, atoms: Atoms, where: str) -> Any:
        """The forces as stored, or None."""
        return self._find(atoms, where, "forces", FORCES_KEYS, self.options.forces_key)

    def stress(self, atoms: Atoms, where: str) -> Any:
        """The stress [3, 3] as stored, a virial divided by −volume, or None; only for three periodic axes."""
        if not atoms.pbc.all() and self.options.stress_key is None:
            return None
        value = self._find(atoms, where, "stress", STRESS_KEYS, self.options.stress_key)
        if value is None:
            return None
        matrix = _three_by_three(value, where)
        return -matrix / atoms.get_volume() if "virial" in self.chosen["stress"].lower() else matrix

    def _find(self, atoms: Atoms, where: str, label: str, names: tuple[str, ...], asked: str | None) -> Any:
        found = values_under(atoms, (asked,) if asked else names)
        if not found:
            return None
        if len(found) > 1 and not _same(list(found.values())):
            hint = "; forces are the gradient of the free energy" if "free_energy" in found else ""
            shown = ", ".join(f"{key} = {_short(value)}" for key, value in found.items())
            raise DataError(
                f"{where}: {len(found)} different values could be the {label}: {shown}{hint}; choose one with "
                f"{advice(f'{label}_key', 'NAME')}"
            )
        chosen = self.chosen.setdefault(label, next(iter(found)))
        if chosen not in found:
            raise DataError(
                f"{where}: the {label} of earlier frames is called {chosen!r}, here only {' and '.join(found)} is "
                f"there; choose one with {advice(f'{label}_key', 'NAME')}"
            )
        self.options.notes.found(label, chosen)
        return found[chosen]


def _same(values: list[Any]) -> bool:
    try:
        arrays = [np.asarray(value, dtype=np.float64) for value in values]
    except (TypeError, ValueError):
        return False
    first = arrays[0]
    return all(a.shape == first.shape and np.allclose(a, first, rtol=AGREEMENT, atol=AGREEMENT) for a in arrays[1:])


def _short(value: Any) -> str:
    array = np.asarray(value)
    return str(value) if array.ndim == 0 else f"{array.dtype.name} {list(array.shape)}"


def _three_by_three(value: Any, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A stress of 9 or [3, 3] numbers, or of ASE's 6 in Voigt order xx, yy, zz, yz, xz, xy, as [3, 3]."""
    stress = np.asarray(value, dtype=np.float64)
    if stress.size == 6:
        return stress.reshape(6)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    if stress.size == 9:
        return stress.reshape(3, 3)
    raise DataError(f"{where}: a stress has 6 or 9 numbers, got shape {list(stress.shape)}")


def declared_units(atoms: Atoms, where: str) -> Units | None:
    """The units that ``atoms.info`` names under ``energy_unit``, ``forces_unit`` and the like, or None."""
    energy = _declared(atoms, where, energy_factor, "energy_unit", "energy_units")
    length = _declared(atoms, where, length_factor, "length_unit", "length_units", "positions_unit")
    force = _declared(atoms, where, force_factor, "forces_unit", "force_unit", "forces_units")
    stress = _declared(atoms, where, stress_factor, "stress_unit", "stress_units")
    if energy is None:
        return None
    length = length or ("Å", 1.0)
    force = force or (f"{energy[0]}/{length[0]}", energy[1] / length[1])
    stress = stress or (f"{energy[0]}/{length[0]}^3", energy[1] / length[1] ** 3)
    name = ", ".join((energy[0], length[0], force[0], stress[0]))
    return Units(energy[1], length[1], force[1], stress[1], name)


def _declared(atoms: Atoms, where: str, factor: Callable[[str], float], *names: str) -> tuple[str, float] | None:
    for name in names:
        if isinstance(atoms.info.get(name), str):
            try:
                return atoms.info[name], factor(atoms.info[name])
            except DataError as error:
                raise DataError(f"{where}: {name}: {error}") from None
    return None
