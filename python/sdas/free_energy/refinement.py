"""When the Wang–Landau increment shrinks.

It is halved whenever the histogram since the last halving is flat (Wang and Landau, Phys. Rev. Lett. 86, 2050 (2001)).
Once that would take it below 1/t, it is 1/t, where t is the mean number of visits to a bin so far (Belardinelli and
Pereyra, Phys. Rev. E 75, 046701 (2007)): halving alone leaves an error that no longer run removes.
"""

from __future__ import annotations

import numpy as np

FLAT = 0.5
"""The least visited bin has this much of the mean. Halving alone wants 0.8; here it only leads to 1/t."""


def flatness(histogram: np.ndarray, known: np.ndarray) -> float:
    """Smallest count over the mean, of the bins that were ever visited; 0 where there are none."""
    counts = histogram[known]
    return float(counts.min() / counts.mean()) if counts.size and counts.sum() else 0.0


def refined(
    increment: float, late: bool, histogram: np.ndarray, known: np.ndarray, visits: float
) -> tuple[float, bool, bool]:
    """The next increment of ln g, never larger; whether it goes like 1/t by now; whether the histogram is flat.

    Args:
        increment: the present one.
        late: whether it went like 1/t before.
        histogram: counts since the last halving.
        known: bins that were ever visited.
        visits: in all bins together, since the beginning.
    """
    slow = max(int(known.sum()), 1) / max(visits, 1.0)
    flat = not late and flatness(histogram, known) >= FLAT
    if late or (flat and increment / 2 <= slow):
        return min(increment, slow), True, flat
    return (increment / 2 if flat else increment), False, flat
