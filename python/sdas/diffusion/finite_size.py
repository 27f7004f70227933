"""What the size of the box does to a diffusion constant."""

from __future__ import annotations

import math

import numpy as np

from sdas.errors import SdasError

XI = 2.837297
"""Of a cubic box."""
BOLTZMANN = 1.380649e-23  # J/K


def yeh_hummer(temperature_k: float, viscosity_mpa_s: float, cell: np.ndarray) -> float:
    """What is to be added to D of a periodic cubic box, Å²/ps: D∞ = D + ξ k_B T / (6 π η L), ξ = 2.837297.

    Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004). The viscosity is that of the liquid; it hardly depends on the
    size of the box.

    Args:
        temperature_k: K.
        viscosity_mpa_s: η, mPa·s.
        cell: [3, 3] Å.

    Raises:
        SdasError: a number is not positive, or the cell is not cubic.
    """
    for name, value in (("the temperature", temperature_k), ("the viscosity", viscosity_mpa_s)):
        if not 0 < value < float("inf"):
            raise SdasError(f"{name} must be positive, got {value:g}")
    metric = cell @ cell.T
    edge = math.sqrt(metric.trace() / 3)
    if np.abs(metric - edge**2 * np.eye(3)).max() > 0.01 * edge**2:
        raise SdasError(
            "the finite-size correction is that of a cubic box, and the cell is not cubic: leave --viscosity out"
        )
    metres = XI * BOLTZMANN * temperature_k / (6 * math.pi * viscosity_mpa_s * 1e-3 * edge * 1e-10)
    return metres * 1e8
