"""Phil Wang's `equiformer-pytorch`, from PyPI: the Equiformer paper's ideas in his own code, not the authors' model.

Forces are its vectors (degree 1) and energies its scalars, by what it puts out itself: its rotation matrices carry no
gradient, so forces cannot be derivatives of its energy. Neighbours beyond the cutoff are masked, not faded out.
"""

from __future__ import annotations

import torch
from equiformer_pytorch import Equiformer
from torch import nn

from apr.protocol import CUTOFF
from apr.trainers.direct import direct_peer
from apr.trainers.frames import Frames
from apr.trainers.loop import Peer


class Potential(nn.Module):
    """Energies `[B]` and forces `[B, N, 3]` of its outputs of degree 0 and 1."""

    def __init__(self, species: int) -> None:
        super().__init__()
        self.network = Equiformer(
            num_tokens=species, dim=(32, 16), dim_head=(16, 8), heads=(4, 4), num_degrees=2, depth=2,
            valid_radius=CUTOFF, attend_self=True, l2_dist_attention=False, reduce_dim_out=True,
        )  # fmt: skip

    def forward(self, kinds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """kinds `[B, N]`, positions `[B, N, 3]` Å."""
        out = self.network(kinds, positions, mask=torch.ones_like(kinds, dtype=torch.bool))
        return out.type0.flatten(1).sum(1), out.type1.reshape(positions.shape)


def build(frames: Frames, seed: int) -> Peer:
    """Two layers, 32 scalars and 16 vectors, four heads."""
    settings = {"network": "depth 2, 32 scalars and 16 vectors, 4 heads, MLP attention as in the paper"}
    return direct_peer(Potential(len(frames.species)), frames, ("equiformer-pytorch",), settings)
