"""SDAS, this library's model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import sdas_kernels as sk
from peers.model import Model, Settings
from sdas_kernels.graph import EdgeIndex

VARIANTS = ("eager", "compiled")


def build(settings: Settings) -> Model:
    """The default model: as many heads as channels up to 32."""
    torch.manual_seed(settings.seed)
    heads = min(settings.channels, 32)
    shape = {"channels": settings.channels, "heads": heads, "lmax": settings.lmax, "layers": settings.layers}
    model = sk.nn.SDAS(settings.species, cutoff=settings.cutoff, **shape)
    model.train(settings.step == "training")
    model.requires_grad_(settings.step == "training")
    parameters = list(model.parameters())
    potential = sk.nn.CompiledPotential(model) if settings.variant == "compiled" else model

    def load(arrays: dict[str, np.ndarray]) -> sk.NeighborGraph:
        found = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return sk.NeighborGraph(
            positions=found["positions"],
            numbers=found["numbers"],
            edges=EdgeIndex.from_pairs(found["receivers"], found["senders"], len(found["numbers"])),
            cell_shifts=found["shifts"],
            cells=found["cells"],
            pbc=found["pbc"],
            system=found["system"],
            cutoff=settings.cutoff,
            periodic=bool(found["pbc"].any()),
        ).to(dtype=torch.float32)

    def forces(graph: sk.NeighborGraph) -> tuple[Any, ...]:
        out = potential(graph)
        return out["energy"], out["forces"]

    def training(graph: sk.NeighborGraph) -> tuple[Any, ...]:
        model.zero_grad()
        out = potential(graph)
        atoms = torch.bincount(graph.system)
        loss = (out["energy"] / atoms).square().mean() + out["forces"].square().mean()
        loss.backward()
        zeros = torch.zeros_like
        return (torch.cat([(zeros(p) if p.grad is None else p.grad).flatten() for p in parameters]),)

    count = sum(p.numel() for p in parameters)
    step = {"forces": forces, "training": training}[settings.step]
    return Model(load, step, count, ("sdas-kernels",))
