"""What a unit such as ``kcal/(mol Å)`` is worth: a product of known words with powers, taken apart.

Words are joined by ``/``, ``*``, ``·`` or a space, and raised to a power by ``^``, ``**``, ``²``, ``³``, or a number
that follows at once, as in ``mol-1`` or ``Å3``. What follows a ``/`` is divided by up to the next sign, and a bracket
as a whole. Case does not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class Worth:
    """``factor`` in eV^energy Å^length; ``moles`` counts a remaining mol, which no unit of a label has."""

    factor: float
    energy: int = 0
    length: int = 0
    moles: int = 0

    def times(self, other: Worth, power: int) -> Worth:
        """This one times ``other`` to the ``power``."""
        scale = other.factor ** abs(power)
        return Worth(
            self.factor * scale if power > 0 else self.factor / scale,
            self.energy + power * other.energy,
            self.length + power * other.length,
            self.moles + power * other.moles,
        )


def _energy(factor: float, moles: int = 0) -> Worth:
    return Worth(factor, energy=1, moles=moles)


def _length(factor: float) -> Worth:
    return Worth(factor, length=1)


def _pressure(gigapascals: float) -> Worth:
    return Worth(gigapascals * GPA, energy=1, length=-3)


# A kcal is written for a kcal/mol so often that it counts as one; see worth.
_WORTHS = {
    **dict.fromkeys(("ev", "electronvolt", "electronvolts"), _energy(1.0)),
    "mev": _energy(1e-3),
    **dict.fromkeys(("hartree", "hartrees", "ha", "eh", "e_h"), _energy(HARTREE)),
    **dict.fromkeys(("mhartree", "millihartree", "mha", "meh"), _energy(1e-3 * HARTREE)),
    **dict.fromkeys(("rydberg", "rydbergs", "ry"), _energy(HARTREE / 2)),
    **dict.fromkeys(("kcal", "kilocalorie", "kilocalories"), _energy(KCAL_PER_MOL, moles=1)),
    **dict.fromkeys(("kj", "kilojoule", "kilojoules"), _energy(KJ_PER_MOL, moles=1)),
    **dict.fromkeys(("mol", "mole"), Worth(1.0, moles=1)),
    **dict.fromkeys(("angstrom", "angstroms", "ang", "a", "å"), _length(1.0)),
    **dict.fromkeys(("bohr", "bohrs", "a0", "a_0"), _length(BOHR)),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), _length(10.0)),
    **dict.fromkeys(("pm", "picometer", "picometers"), _length(0.01)),
    "gpa": _pressure(1.0),
    "mpa": _pressure(1e-3),
    "kpa": _pressure(1e-6),
    **dict.fromkeys(("pa", "pascal"), _pressure(1e-9)),
    **dict.fromkeys(("kbar", "kb"), _pressure(0.1)),
    "bar": _pressure(1e-4),
    "atm": _pressure(1.01325e-4),
}
_TOKEN = re.compile(r"(a0|[a-zå]+(?:_[a-z0]+)?)(?:(?:\^|\*\*)?\(?([+-]?\d+)\)?)?|(\*|/|\(|\)|\s+)")


@lru_cache(maxsize=1024)
def worth(text: str) -> Worth | None:
    """The :class:`Worth` of a unit, or None if it is not understood.

    ``kcal`` and ``kJ`` count as per mol whether ``/mol`` is there or not; any other mol makes it not understood.
    """
    total = Worth(1.0)
    place, sign, outer = 0, 1, [1]
    expression = _plain(text)
    while place < len(expression):
        token = _TOKEN.match(expression, place)
        if token is None:
            return None
        place = token.end()
        word, power, joint = token.groups()
        if joint is None:
            if word not in _WORTHS:
                return None
            total = total.times(_WORTHS[word], sign * int(power or 1))
            sign = outer[-1]
        elif joint == "/":
            sign = -outer[-1]
        elif joint == "(":
            outer.append(sign)
        elif joint == ")":
            if len(outer) == 1:
                return None
            sign = outer[-2]
            outer.pop()
        elif joint == "*":
            sign = outer[-1]
    complete = len(outer) == 1 and not re.search(r"^[/*]|[/*]$|/[/*]|\*/", expression)
    per_mole = total.moles in (0, 1 if "kcal" in expression or "kj" in expression else 0)
    return total if complete and expression and per_mole else None


def _plain(text: str) -> str:
    plain = text.strip().lower().replace("\u212b", "å").replace("·", "*").replace("⋅", "*")
    for mark, spelled in (("⁻", "-"), ("¹", "1"), ("²", "2"), ("³", "3")):
        plain = plain.replace(mark, spelled)
    plain = re.sub(r"(kcal|kj)(?=mol)", r"\1*", re.sub(r"[ _]per[ _]", "/", plain))
    return re.sub(r"\s*([/*()^])\s*", r"\1", plain)
