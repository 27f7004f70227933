"""How far a model's diffusion constant is from the reference's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sdas.diffusion.estimate import INTERVAL, Diffusion
from sdas.errors import SdasError


@dataclass(frozen=True)
class DiffusionError:
    """The effective diffusion constant error, |D_model − D_ref| / D_ref, with its 95 % interval.

    signed: the same with its sign. overlap: whether the intervals of the two constants do.
    """

    element: str
    error: float
    interval: tuple[float, float]
    signed: float
    overlap: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"interval": list(self.interval)}


def diffusion_error(model: Diffusion, reference: Diffusion, seed: int = 0) -> DiffusionError:
    """Of two measurements that are independent; the interval is over pairs of samples.

    Raises SdasError if they are of different elements, or the reference does not diffuse.
    """
    if model.element != reference.element:
        raise SdasError(f"diffusion constants of {model.element} and {reference.element} are not to be compared")
    if not reference.mean > 0:
        raise SdasError(
            f"the reference's {reference.element} does not diffuse: its constant is {reference.mean:g} Å²/ps"
        )
    generator = np.random.default_rng(seed)
    ours, theirs = generator.choice(model.samples, 20_000), generator.choice(reference.samples, 20_000)
    low, high = np.percentile(np.abs(ours - theirs) / theirs, INTERVAL)
    signed = (model.mean - reference.mean) / reference.mean
    overlap = model.interval[0] <= reference.interval[1] and reference.interval[0] <= model.interval[1]
    return DiffusionError(model.element, abs(signed), (float(low), float(high)), signed, overlap)
