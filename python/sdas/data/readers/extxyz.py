"""Extended XYZ that ASE does not take as it is written: keys in another case, as GPUMD takes them, or six numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from sdas.data.readers.ase_formats import head_of

_KEYS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
_COLUMNS = ("species", "pos")
_NUMBER = r"[-+.\deEdD]+"
_SIX_NUMBERS = re.compile(
    rf"""(?<![\w-])(stress|virial)\s*=\s*["'{{\[]\s*({_NUMBER}(?:[\s,]+{_NUMBER}){{5}})\s*["'}}\]]"""
)
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)


def parse_comment(line: str) -> dict[str, Any]:
    """Keys and values of the comment line of a frame, those that give its structure spelled as ASE knows them.

    A ``stress`` or ``virial`` of six numbers, in the order xx, yy, zz, yz, xz, xy, comes as the nine that ASE wants.
    """
    info: dict[str, Any]
    try:
        info = key_val_str_to_dict(line)
    except ValueError:
        info = key_val_str_to_dict(_SIX_NUMBERS.sub(_nine_numbers, line))
    for key in [key for key in info if _KEYS.get(key.lower(), key) not in info]:
        info[_KEYS[key.lower()]] = info.pop(key)
    if isinstance(info.get("Lattice"), np.ndarray) and info["Lattice"].shape == (9,):
        info["Lattice"] = np.reshape(info["Lattice"], (3, 3), order="F")
    if isinstance(info.get("Properties"), str):
        fields = info["Properties"].split(":")
        fields[::3] = [name.lower() if name.lower() in _COLUMNS else name for name in fields[::3]]
        info["Properties"] = ":".join(fields)
    return info


def _nine_numbers(match: re.Match[str]) -> str:
    numbers = match[2].replace(",", " ").split()
    return f'{match[1]}="{" ".join(numbers[i] for i in _VOIGT)}"'


def nameless_columns(path: Path) -> str | None:
    """What to say of a plain XYZ file with more columns than element and position, which nothing names; or None."""
    _, comment, atom = [*head_of(path).splitlines()[:3], "", "", ""][:3]
    count = len(atom.split())
    if count <= 4 or "properties=" in comment.lower():
        return None
    return f"columns 5 to {count} of {path} are not read: its comment line has no Properties that name them"
