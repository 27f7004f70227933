"""NequIP in dynamics through its own ASE calculator; variants as of `peers.nequip`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms

from peers import flight, nequip
from peers.model import Model, Settings

VARIANTS = ("eager", "compiled")


def build(settings: Settings) -> Model:
    """The model of `peers.nequip` behind its calculator, which finds neighbors by its default backend."""
    names = [chemical_symbols[z] for z in settings.species]
    network = nequip.network(settings)
    runners: dict[str, Any] = {}

    def load(arrays: dict[str, np.ndarray]) -> Any:
        if "model" not in runners:
            runners["model"] = network.eval()
            if settings.variant == "compiled":
                data = nequip.atomic_data(arrays, settings, cell=True)
                runners["model"] = nequip.exported(network, data, "ase", settings)
        transforms = basic_transforms({}, settings.cutoff, names, {name: name for name in names})
        return flight.Flight(arrays, NequIPCalculator(runners["model"], "cpu", transforms=transforms))

    def step(system: Any) -> tuple[torch.Tensor, ...]:
        return tuple(torch.as_tensor(part) for part in system.step())

    return Model(load, step, sum(p.numel() for p in network.parameters()), ("nequip", "e3nn"))
