"""Units of files, and their factors to the units used inside (Å, eV, eV/Å, eV/Å³).

Hartree, bohr and GPa are CODATA 2014 (Mohr, Newell, Taylor, Rev. Mod. Phys. 88, 035009), the set that ASE uses by
default: a label computed through ASE and the same label read from a file then agree to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdas.data.errors import DataError

HARTREE = 27.211386024367243
"""One Hartree in eV."""
BOHR = 0.5291772105638411
"""One bohr in Å."""
KCAL_PER_MOL = 0.0433641153087705
"""One kcal/mol (thermochemical, 4184 J) in eV, as customary for MD17; CODATA 2014 gives a value smaller by 2.6e-7
of it, which shifts the total energies of ethanol by 1.1 meV, all alike, and forces by nothing that can be seen."""
KJ_PER_MOL = KCAL_PER_MOL / 4.184
"""One kJ/mol in eV."""
GPA = 0.006241509125883258
"""One GPa in eV/Å³."""

ENERGY_UNITS = {
    "ev": 1.0,
    "mev": 1e-3,
    "kcal/mol": KCAL_PER_MOL,
    "kj/mol": KJ_PER_MOL,
    "hartree": HARTREE,
    "rydberg": HARTREE / 2,
}
LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
ATOMIC_UNITS = {"energy": HARTREE, "length": BOHR}
PRESSURE_UNITS = {"gpa": GPA, "kbar": 0.1 * GPA}

_SPELLINGS = {
    "electronvolt": "ev",
    "kcalmol-1": "kcal/mol",
    "kcalmol^-1": "kcal/mol",
    "kcal": "kcal/mol",
    "kjmol-1": "kj/mol",
    "kjmol^-1": "kj/mol",
    "ha": "hartree",
    "eh": "hartree",
    "ry": "rydberg",
    "å": "angstrom",
    "a": "angstrom",
    "ang": "angstrom",
    "angstroms": "angstrom",
    "a0": "bohr",
    "nanometer": "nm",
}


def _normalize(name: str) -> str:
    key = name.strip().replace(" ", "").lower().replace("\u212b", "å")
    return _SPELLINGS.get(key, key)


def energy_factor(name: str) -> float:
    """eV per unit of energy called ``name``; raises :class:`DataError` for an unknown name."""
    return _look_up(name, ENERGY_UNITS, "energy")


def length_factor(name: str) -> float:
    """Å per unit of length called ``name``; raises :class:`DataError` for an unknown name."""
    return _look_up(name, LENGTH_UNITS, "length")


def force_factor(name: str) -> float:
    """eV/Å per unit of force, spelled ``energy/length`` as in ``Hartree/bohr`` or ``kcal/mol/Å``."""
    energy, slash, length = name.strip().rpartition("/")
    if not slash or _normalize(name) in ENERGY_UNITS:
        raise DataError(f"unknown unit of force {name!r}: spell it energy/length, for example eV/Å or Hartree/bohr")
    return energy_factor(energy) / length_factor(length)


def stress_factor(name: str) -> float:
    """eV/Å³ per unit of stress, spelled ``energy/length^3`` (as in ``eV/Å^3``), ``GPa`` or ``kbar``."""
    key = _normalize(name)
    if key in PRESSURE_UNITS:
        return PRESSURE_UNITS[key]
    energy, _, volume = name.strip().rpartition("/")
    length, cubed = volume.replace("**", "^").replace("³", "^3").removesuffix("3"), volume.endswith(("3", "³"))
    if not energy or not cubed:
        raise DataError(f"unknown unit of stress {name!r}: spell it energy/length^3, GPa or kbar")
    return energy_factor(energy) / length_factor(length.rstrip("^")) ** 3


def _look_up(name: str, table: dict[str, float], kind: str) -> float:
    key = _normalize(name)
    if key in ("au", "a.u."):
        return ATOMIC_UNITS[kind]
    try:
        return table[key]
    except KeyError:
        raise DataError(f"unknown unit of {kind} {name!r}; known: {', '.join(table)}") from None


@dataclass(frozen=True, slots=True)
class Units:
    """Factors that turn what a file stores into Å, eV, eV/Å and eV/Å³ by multiplication."""

    energy: float = 1.0
    length: float = 1.0
    force: float = 1.0
    stress: float = 1.0
    name: str = "eV, Å"

    @classmethod
    def parse(cls, text: str) -> Units:
        """Units written as ``ENERGY[,LENGTH[,FORCE[,STRESS]]]``.

        The length is Å unless said; force and stress follow from energy and length unless said. Examples: ``eV``,
        ``kcal/mol``, ``Hartree,bohr``, ``Hartree,Å,Hartree/bohr``, ``eV,Å,eV/Å,GPa``. Raises :class:`DataError`.
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

    def same_as(self, other: Units) -> bool:
        """Whether both convert alike, however they are spelled."""
        return (self.energy, self.length, self.force, self.stress) == (
            other.energy,
            other.length,
            other.force,
            other.stress,
        )
