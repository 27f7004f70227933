"""Chemical elements by number and by symbol."""

from __future__ import annotations

from typing import Any

from sdas_kernels.arguments import whole_number

_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc
Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi
Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_TABLE.split())
"""Of atomic number k + 1."""

COVALENT_RADII_PM = (
    31, 28, 128, 96, 84, 76, 71, 66, 57, 58, 166, 141, 121, 111, 107, 105, 102, 106, 203, 176, 170, 160, 153, 139,
    139, 132, 126, 124, 132, 122, 122, 120, 119, 120, 120, 116, 220, 195, 190, 175, 164, 154, 147, 146, 142, 139,
    145, 144, 142, 139, 139, 138, 139, 140, 244, 215, 207, 204, 203, 201, 199, 198, 198, 196, 194, 192, 192, 189,
    190, 187, 187, 175, 170, 162, 151, 144, 141, 136, 136, 132, 145, 146, 148, 140, 150, 150, 260, 221, 215, 206,
    200, 196, 190, 187, 180, 169,
)  # fmt: skip
"""Of atomic number k + 1, up to 96; in pm. B. Cordero and others, Dalton Trans. 2008, 2832."""

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, 1)}


def atomic_number(owner: str, name: str, element: Any) -> int:
    """Of an element given by number 1..118 or by symbol. Raises `TypeError`, `ValueError` for what is neither."""
    if not isinstance(element, str):
        return whole_number(owner, name, element, 1, len(SYMBOLS))
    if element not in _NUMBERS:
        raise ValueError(f"{owner}: {name} must be atomic numbers 1..118 or symbols as 'H', got {element!r}")
    return _NUMBERS[element]
