"""A transformer without symmetry: atoms are tokens, coordinates are numbers, rotations are learnt from turned frames.

Built of PyTorch's own encoder. It predicts energies and forces by heads of their own, as unconstrained models do: that
needs no second derivatives, so it is the cheapest per step. Frames are turned at random in every step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from apr.trainers.direct import direct_peer
from apr.trainers.frames import Arrays, Frames
from apr.trainers.loop import Peer

WIDTH, HEADS, LAYERS = 128, 8, 4


class Transformer(nn.Module):
    """Encoder over atoms, coordinates about the centre of the frame; energies `[B]`, forces `[B, N, 3]`."""

    def __init__(self, species: tuple[int, ...]) -> None:
        super().__init__()
        self.kinds = nn.Embedding(len(species), WIDTH)
        self.place = nn.Sequential(nn.Linear(3, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.energy = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1))
        self.forces = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3))

    def forward(self, kinds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """kinds `[B, N]`, positions `[B, N, 3]` Å."""
        x = self.layers(self.kinds(kinds) + self.place(positions - positions.mean(1, keepdim=True)))
        return self.energy(x).sum((1, 2)), self.forces(x)


def turned(arrays: Arrays, random: np.random.Generator) -> Arrays:
    """Every frame turned, and mirrored half of the time, at random."""
    frames = len(arrays["energies"])
    q, r = np.linalg.qr(random.normal(size=(frames, 3, 3)))
    turns = q * np.sign(np.einsum("fii->fi", r))[:, None, :]
    by_atom = turns[arrays["system"]]
    turn = {name: np.einsum("nij,nj->ni", by_atom, arrays[name]) for name in ("positions", "forces")}
    return arrays | turn


def build(frames: Frames, seed: int) -> Peer:
    """Four layers of width 128."""
    torch.backends.mha.set_fastpath_enabled(False)  # one fused call, whose FLOPs nobody could count
    settings = {
        "network": f"{LAYERS} layers, width {WIDTH}, {HEADS} heads, forces by a head of their own",
        "augmentation": "every frame turned and mirrored at random in every step",
    }
    return direct_peer(Transformer(frames.species), frames, ("torch",), settings, turned)
