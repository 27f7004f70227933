"""What the models share that take coordinates of molecules as they are, and predict forces by a head of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from apr.trainers.frames import Arrays, Frames
from apr.trainers.loop import Augment, Peer, per_atom_loss
from apr.trainers.muon import SlicedMuon

LOSS = "mean squares of energies per atom and of forces, 1 : 1"


def direct_peer(
    network: nn.Module,
    frames: Frames,
    packages: tuple[str, ...],
    settings: dict[str, str],
    augment: Augment | None = None,
) -> Peer:
    """`network`: kinds `[B, N]` and positions `[B, N, 3]` Å → energies `[B]` and forces `[B, N, 3]`.

    Raises ValueError for periodic frames, of which such a network sees one image only.
    """
    if frames.pbc.any():
        raise ValueError("coordinates as they are know no periodic images")
    atoms = len(frames.numbers)
    kinds = torch.from_numpy(np.searchsorted(frames.species, frames.numbers))

    def load(arrays: Arrays) -> Any:
        return torch.as_tensor(arrays["positions"], dtype=torch.float32).view(-1, atoms, 3)

    def evaluate(network: nn.Module, positions: torch.Tensor, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.set_grad_enabled(again):
            energy, forces = network(kinds.expand(len(positions), -1), positions)
        return energy, forces.reshape(-1, 3)

    def optimizer(name: str, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=rate) if name == "adam" else SlicedMuon(network, rate)

    return Peer(
        network, load, evaluate, per_atom_loss, optimizer, 0.999, 10.0, packages, settings | {"loss": LOSS}, augment
    )
