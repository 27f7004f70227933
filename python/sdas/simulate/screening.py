"""Frames that no molecule ever has: atoms on top of each other, bonds torn, numbers that are none."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from sdas.data.frame import FloatArray
from sdas.simulate.molecule import Molecule

CLOSEST = 0.55
"""Of the sum of covalent radii: nearest bonded atoms come to 0.75 at 2000 K."""
LONGEST = 1.7
"""The same of a bond, which breaks at some 1.6."""


class Screen:
    """The bounds of one molecule."""

    def __init__(self, molecule: Molecule) -> None:
        radii = covalent_radii[molecule.numbers]
        self.sums = radii[:, None] + radii
        self.bonds = molecule.bonds
        self.pairs = np.triu_indices(len(radii), 1)

    def fault(self, positions: FloatArray) -> str | None:
        """What is wrong with positions [n, 3]: ``not finite``, ``overlap``, ``broken bond``, or None."""
        if not np.isfinite(positions).all():
            return "not finite"
        ratios = np.linalg.norm(positions[:, None] - positions, axis=-1) / self.sums
        if len(ratios) > 1 and ratios[self.pairs].min() < CLOSEST:
            return "overlap"
        if len(self.bonds) and ratios[self.bonds[:, 0], self.bonds[:, 1]].max() > LONGEST:
            return "broken bond"
        return None
