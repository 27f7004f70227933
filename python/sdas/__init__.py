"""SDAS: train, grow, label and run machine-learned force fields built on :mod:`sdas_kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdas.version import __version__

if TYPE_CHECKING:
    from sdas_kernels.nn import SDAS

__all__ = ["__version__", "pretrained"]


def pretrained(name: str) -> SDAS:
    """A trained potential that comes with the package, by the name of its molecule: :func:`sdas.potentials.load`."""
    from sdas.potentials import load

    return load(name)
