"""Trained potentials of single molecules, shipped inside the package: `sdas.pretrained("ethanol")`.

Each is a folder of :func:`sdas.run.checkpoint.save_model` with a card, and a labelled frame that it was not trained on.
`bench/pretrained.py` makes them; README.md beside them is their table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdas.data import Frame, read_frames
from sdas.errors import SdasError
from sdas.run.checkpoint import load_model, read_model_document

if TYPE_CHECKING:
    from sdas_kernels.nn import SDAS

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/model.json")))


def load(name: str) -> SDAS:
    """The potential of a molecule, float32 on the CPU, in eval mode.

    It knows its own molecule near 500 K, as the trajectory that it was trained on. Of other molecules, and of atoms
    that leave, it knows nothing, even where the elements are the same.

    Raises SdasError for a name that is not one of `NAMES`.
    """
    model: SDAS = load_model(folder(name))  # type: ignore[assignment]
    return model


def card(name: str) -> dict[str, Any]:
    """What a potential was made of and how good it is: data, license, citation, errors on test frames, training."""
    return dict(read_model_document(folder(name))["extra"])


def frame(name: str) -> Frame:
    """A test frame of the molecule with its reference energy and forces: something to start from, and to check by."""
    return next(iter(read_frames(folder(name).with_suffix(".extxyz"))))


def folder(name: str) -> Path:
    """The folder of a potential, for commands that take a model: `sdas md`, `sdas validate`, `sdas interpret`."""
    if name not in NAMES:
        raise SdasError(f"no potential {name!r} comes with the package; there are: {', '.join(NAMES)}")
    return FOLDER / name
