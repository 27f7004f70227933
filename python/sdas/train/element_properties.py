"""What elements have in common, for models of many of them.

Drawn at random, the weights of each element must be learned from the few frames that hold it. Made of properties,
elements that are alike begin alike, so a frame teaches something about all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray

SHELLS = sorted(((n, l) for n in range(1, 9) for l in range(min(n, 4))), key=lambda shell: (sum(shell), shell[0]))
"""(n, l), as electrons fill them (Madelung's rule)."""
NUMBER_OF_PROPERTIES = 7


def properties(number: int) -> list[float]:
    """Of the element of that atomic number: period, covalent radius in Å, the electrons of its open shells as fractions
    of full ones (s, p, d, f), and how many of them there are besides those in f.

    d counts before p begins, f before d begins. So along a row each value rises, and then stays or is gone.
    """
    left, electrons = number, dict.fromkeys(SHELLS, 0)
    for n, l in SHELLS:
        electrons[n, l] = min(left, 4 * l + 2)
        left -= electrons[n, l]
    period = max(n for (n, _), held in electrons.items() if held)
    s, p = electrons[period, 0], electrons[period, 1] if period > 1 else 0
    d = electrons[period - 1, 2] if period > 3 and not p else 0
    f = electrons[period - 2, 3] if period > 5 and not (p or d) else 0
    return [period, float(covalent_radii[number]), s / 2, p / 6, d / 10, f / 14, s + p + d]


def embedding_of(numbers: Sequence[int], channels: int) -> torch.Tensor:
    """Weights [elements, channels] of variance 1: the properties, each of mean 0 and variance 1 over these elements,
    times a matrix drawn at random."""
    table: NDArray[np.float64] = np.array([properties(number) for number in numbers])
    spread = table.std(0)
    scaled = (table - table.mean(0)) / np.where(spread > 0, spread, 1.0)
    return torch.tensor(scaled, dtype=torch.float32) @ torch.randn(table.shape[1], channels) / table.shape[1] ** 0.5
