"""SDAS in dynamics: through ASE, with and without a Verlet list, and as replicas of this library's own integrator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import sdas_kernels as sk
from peers import flight
from peers.model import Model, Settings
from sdas.md import Replicas, SDASCalculator
from sdas.md.faults import Limits

VARIANTS = ("ase", "ase, neighbors anew", "replicas", "replicas, one per call", "replicas, float64")


def build(settings: Settings) -> Model:
    """The default model: as many heads as channels up to 32."""
    torch.manual_seed(settings.seed)
    heads = min(settings.channels, 32)
    shape = {"channels": settings.channels, "heads": heads, "lmax": settings.lmax, "layers": settings.layers}
    model = sk.nn.SDAS(settings.species, cutoff=settings.cutoff, **shape).eval()
    count = sum(p.numel() for p in model.parameters())
    kind, _, detail = settings.variant.partition(", ")
    dtype = "float64" if detail == "float64" else "float32"

    def load(arrays: dict[str, np.ndarray]) -> Any:
        if kind == "replicas":
            batch = 1 if detail == "one per call" else None
            return _Replicas(model, flight.structures(arrays), dtype, batch)
        options = {"skin": 0.0} if detail == "neighbors anew" else {}
        return flight.Flight(arrays, SDASCalculator(model, dtype, **options))

    def step(system: Any) -> tuple[torch.Tensor, ...]:
        return tuple(torch.as_tensor(part) for part in system.step())

    return Model(load, step, count, ("sdas-kernels",))


class _Replicas:
    """All systems at once."""

    def __init__(self, model: torch.nn.Module, atoms: list[Any], dtype: str, batch: int | None) -> None:
        hot = {"temperature_k": flight.TEMPERATURE_K, "limits": Limits(0.0, np.inf)}
        self.replicas = Replicas(model, atoms, timestep_fs=flight.TIMESTEP_FS, dtype=dtype, batch=batch, **hot)
        motion = self.replicas.motion
        self.start, self.steps = (motion.systems.positions.clone(), motion.velocities.clone()), 0

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies and forces after a step."""
        motion = self.replicas.motion
        if self.steps == flight.STEPS:
            motion.systems.positions.copy_(self.start[0])
            motion.velocities.copy_(self.start[1])
            self.steps = 0
        self.steps += 1
        self.replicas.advance()
        return self.replicas.results["energy"], self.replicas.results["forces"]
