"""The factors that normalize solid harmonics made by the recurrences of `solid_harmonics.h` in csrc."""

from __future__ import annotations

import math


def factors(lmax: int, normalization: str) -> tuple[float, ...]:
    """F_lm for 0 <= m <= l <= lmax, m fastest.

    For orthonormal harmonics F_lm² = (2 - δ_m0) (2l + 1) / (4π) · (l - m)! (l + m)!.
    """
    values = []
    for l in range(lmax + 1):
        area = {"integral": 4 * math.pi, "component": 1, "norm": 2 * l + 1}[normalization]
        for m in range(l + 1):
            square = (2 if m else 1) * (2 * l + 1) * math.factorial(l - m) * math.factorial(l + m)
            values.append(math.sqrt(square / area))
    return tuple(values)
