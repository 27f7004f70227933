"""Extended XYZ whose keys are in another case than ASE's: GPUMD, for one, takes ``lattice`` as ``Lattice``."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import open_with_compression

_KEYS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
_COLUMNS = ("species", "pos")


def parse_comment(line: str) -> dict[str, Any]:
    """Keys and values of the comment line of a frame, those that give its structure spelled as ASE knows them."""
    info: dict[str, Any] = key_val_str_to_dict(line)
    for key in [key for key in info if _KEYS.get(key.lower(), key) not in info]:
        info[_KEYS[key.lower()]] = info.pop(key)
    if isinstance(info.get("Lattice"), np.ndarray) and info["Lattice"].shape == (9,):
        info["Lattice"] = np.reshape(info["Lattice"], (3, 3), order="F")
    if isinstance(info.get("Properties"), str):
        fields = info["Properties"].split(":")
        fields[::3] = [name.lower() if name.lower() in _COLUMNS else name for name in fields[::3]]
        info["Properties"] = ":".join(fields)
    return info


def nameless_columns(path: Path) -> str | None:
    """What to say of a plain XYZ file with more columns than element and position, which nothing names; or None."""
    with open_with_compression(os.fspath(path.absolute()), "rt") as file:
        _, comment, atom = [*islice(file, 3), "", "", ""][:3]
    count = len(atom.split())
    if count <= 4 or "properties=" in comment.lower():
        return None
    return f"columns 5 to {count} of {path} are not read: its comment line has no Properties that name them"
