"""Units of files, and their factors to the units used inside (Å, eV, eV/Å, eV/Å³).

Hartree, bohr and GPa are CODATA 2014 (Mohr, Newell, Taylor, Rev. Mod. Phys. 88, 035009), the set that ASE uses by
default: a label computed through ASE and the same label read from a file then agree to the last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdas.data.errors import DataError
from sdas.data.unit_words import BOHR, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, worth

__all__ = ["BOHR", "GPA", "HARTREE", "KCAL_PER_MOL", "KJ_PER_MOL", "Units"]

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
    "Hartree": HARTREE,
    "Rydberg": HARTREE / 2,
}
"""Energies that messages name as likely or known."""
SAME = 1e-6
"""Largest relative difference of two factors that mean one unit: sets of constants differ by less."""


def _factor(name: str, kind: str, energy: int, length: int, atomic: float, known: str) -> float:
    if name.strip().lower() in ("au", "a.u.", "atomic"):
        return atomic
    found = worth(name)
    if found is None or (found.energy, found.length) != (energy, length):
        raise DataError(f"unknown unit of {kind} {name!r}; known: {known}")
    return found.factor


def energy_factor(name: str) -> float:
    """eV per unit of energy called ``name``; raises :class:`DataError` for an unknown name."""
    return _factor(name, "energy", 1, 0, HARTREE, ", ".join(ENERGY_UNITS))


def length_factor(name: str) -> float:
    """Å per unit of length called ``name``; raises :class:`DataError` for an unknown name."""
    return _factor(name, "length", 0, 1, BOHR, "Å, bohr, nm, pm")


def force_factor(name: str) -> float:
    """eV/Å per unit of force, spelled ``energy/length`` as in ``Hartree/bohr`` or ``kcal/mol/Å``."""
    return _factor(name, "force", 1, -1, HARTREE / BOHR, "energy/length, as in eV/Å or Hartree/bohr")


def stress_factor(name: str) -> float:
    """eV/Å³ per unit of stress: ``energy/length^3``, ``GPa``, ``kbar`` or ``bar``; a minus before it turns the sign.

    Stresses inside have ASE's sign, positive where the material pulls. A pressure has the other one: ``-kbar``.
    """
    plain = name.strip().replace("\u2212", "-")
    sign = -1.0 if plain.startswith("-") else 1.0
    known = "energy/length^3, GPa, kbar, bar; with a minus before it for a pressure, as in -kbar"
    return sign * _factor(plain.removeprefix("-"), "stress", 1, -3, HARTREE / BOHR**3, known)


def same_factor(a: float, b: float) -> bool:
    """Whether two factors mean one unit."""
    return math.isclose(a, b, rel_tol=SAME)


@dataclass(frozen=True, slots=True)
class Units:
    """Factors that turn what a file stores into Å, eV, eV/Å and eV/Å³ by multiplication.

    A virial is an energy, in the unit of energies; divided by −volume it is a stress.
    """

    energy: float = 1.0
    length: float = 1.0
    force: float = 1.0
    stress: float = 1.0
    name: str = "eV, Å"

    @classmethod
    def parse(cls, text: str) -> Units:
        """Units written as ``ENERGY[,LENGTH[,FORCE[,STRESS]]]``.

        The length is Å unless said; force and stress follow from energy and length unless said. Examples: ``eV``,
        ``kcal/mol``, ``Hartree,bohr``, ``Hartree,Å,Hartree/bohr``, ``eV,Å,eV/Å,GPa``, and ``eV,Å,eV/Å,-kbar`` for
        pressures, whose sign is the other one. Raises :class:`DataError`.
        """
        parts = [part.strip() for part in text.split(",")]
        if not 1 <= len(parts) <= 4 or not all(parts):
            raise DataError(f"units must read ENERGY[,LENGTH[,FORCE[,STRESS]]], as in 'kcal/mol'; got {text!r}")
        energy = energy_factor(parts[0])
        length = length_factor(parts[1]) if len(parts) > 1 else 1.0
        force = force_factor(parts[2]) if len(parts) > 2 else energy / length
        stress = stress_factor(parts[3]) if len(parts) > 3 else energy / length**3
        name = ", ".join(parts if len(parts) > 1 else [*parts, "Å"])
        return cls(energy, length, force, stress, name)

    @property
    def stress_follows(self) -> bool:
        """Whether the unit of stress is the one of energy over length³, as it is where nothing else was said."""
        return same_factor(self.stress, self.energy / self.length**3)

    def same_as(self, other: Units) -> bool:
        """Whether both convert alike, however they are spelled."""
        return all(same_factor(getattr(self, q), getattr(other, q)) for q in ("energy", "length", "force", "stress"))
