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

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, 1)}


def atomic_number(owner: str, name: str, element: Any) -> int:
    """Of an element given by number 1..118 or by symbol. Raises `TypeError`, `ValueError` for what is neither."""
    if not isinstance(element, str):
        return whole_number(owner, name, element, 1, len(SYMBOLS))
    if element not in _NUMBERS:
        raise ValueError(f"{owner}: {name} must be atomic numbers 1..118 or symbols as 'H', got {element!r}")
    return _NUMBERS[element]
