"""The sampling error: how far the free energies of a model are from those of the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sdas.errors import SdasError
from sdas.free_energy.landscape import Landscape


@dataclass(frozen=True)
class SamplingError:
    """|F_model − F_reference| over the bins that both know, after their means there are made equal, k_B T.

    noise_kt: the mean that the error bars of both explain; None where one has none. bins: that were compared.
    """

    mean_kt: float
    largest_kt: float
    noise_kt: float | None
    bins: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def sampling_error(model: Landscape, reference: Landscape, ceiling_kt: float | None = None) -> SamplingError:
    """Of two landscapes on the same bins at the same temperature.

    Args:
        model: to be judged.
        reference: to be reached.
        ceiling_kt: leave out bins where the reference lies higher above its minimum.

    Raises SdasError if they are of other variables, bins or temperatures, or have no bin in common.
    """
    same = model.names == reference.names and len(model.centers) == len(reference.centers)
    if not same or not all(
        a.shape == b.shape and np.allclose(a, b) for a, b in zip(model.centers, reference.centers, strict=True)
    ):
        raise SdasError(f"landscapes of other variables or bins cannot be compared: {model.names}, {reference.names}")
    if not np.isclose(model.thermal_ev, reference.thermal_ev):
        raise SdasError("landscapes at two temperatures cannot be compared")
    both = model.known & reference.known
    if ceiling_kt is not None:
        both &= np.where(reference.known, reference.mean, np.inf) <= ceiling_kt
    if not both.any():
        raise SdasError("the two landscapes have no bin in common")
    apart = model.mean[both] - reference.mean[both]
    apart = np.abs(apart - apart.mean())
    ours, theirs = model.error, reference.error
    noise = None
    if ours is not None and theirs is not None:  # E|x| of a normal number is √(2/π) σ
        noise = float(np.sqrt(2 / np.pi) * np.hypot(ours[both], theirs[both]).mean())
    return SamplingError(float(apart.mean()), float(apart.max()), noise, int(both.sum()))
