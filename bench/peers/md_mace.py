"""MACE in dynamics through its own ASE calculator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from peers import flight, mace
from peers.model import Model, Settings

VARIANTS = ("eager",)


def build(settings: Settings) -> Model:
    """The model of `peers.mace` in float32."""
    from mace.calculators import MACECalculator  # behind peers.mace, which makes its constants readable

    torch.set_default_dtype(torch.float32)
    network = mace.network(settings).eval()

    def load(arrays: dict[str, np.ndarray]) -> Any:
        return flight.Flight(arrays, MACECalculator(models=[network], device="cpu", default_dtype="float32"))

    def step(system: Any) -> tuple[torch.Tensor, ...]:
        return tuple(torch.as_tensor(part) for part in system.step())

    return Model(load, step, sum(p.numel() for p in network.parameters()), ("mace-torch", "e3nn"))
