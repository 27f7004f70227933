"""MACE, from the package `mace-torch`: its network, its loss, Adam as its training command has it."""

from __future__ import annotations

from typing import Any

import torch
from peers.mace import batch, network
from peers.model import Settings

from apr.protocol import CUTOFF
from apr.trainers.frames import Arrays, Frames
from apr.trainers.loop import Peer

FORCE_WEIGHT = 100.0


def build(frames: Frames, seed: int) -> Peer:
    """Two layers of 32 channels up to degree 2, correlation 3."""
    settings = Settings(
        "eager", "training", 32, lmax=2, layers=2, cutoff=CUTOFF, neighbors=frames.neighbors, species=frames.species,
        seed=seed,
    )  # fmt: skip
    model = network(settings)
    said = {
        "network": "2 layers, 32 channels up to degree 2, correlation 3, radial network 64-64-64: the size of ours",
        "loss": "mean squares of energies per atom and of forces, 1 : 100, as its training command",
        "average": "decay 0.99, gradients clipped at 10, amsgrad, as its training command",
        "muon": "matrices of the radial networks and, slice by slice, of e3nn's linear layers; Adam for the rest",
    }

    def load(arrays: Arrays) -> Any:
        return batch(arrays, settings)

    def evaluate(model: Any, data: Any, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
        out = model(data | {"positions": data["positions"].clone()}, training=again)
        return out["energy"], out["forces"]

    def optimizer(name: str, rate: float) -> torch.optim.Optimizer:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        if name == "adam":
            return torch.optim.Adam(weights, lr=rate, amsgrad=True, weight_decay=0.0)
        from apr.trainers.muon import SlicedMuon

        return SlicedMuon(model, rate)

    return Peer(model, load, evaluate, loss, optimizer, 0.99, 10.0, ("mace-torch", "e3nn"), said)


def loss(
    energy: torch.Tensor, forces: torch.Tensor, wanted_energy: torch.Tensor, wanted_forces: torch.Tensor, atoms: int
) -> torch.Tensor:
    """Mean squares of errors of energies per atom and of force components, 1 : 100."""
    energies = ((energy - wanted_energy) / atoms).square().mean()
    return energies + FORCE_WEIGHT * (forces - wanted_forces).square().mean()
