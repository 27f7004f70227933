"""Total charge and spin of a system, as what is added to the scalars of its atoms."""

from __future__ import annotations

import torch
from torch import nn

from sdas_kernels.graph import NeighborGraph


class ElectronicEmbedding(nn.Module):
    """A vector `[C]` for each system, to be added to the first scalars of every atom in it.

        v = W · [max(q, 0), max(-q, 0), s - 1]        q: charge in e       s: multiplicity 2S + 1

    So neutral singlets have the vector zero, and any state has one, larger than those of training or not.
    W is zero in the beginning: a column stays so until a system of that sign, or with unpaired electrons, trains it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 3))

    def forward(self, batch: NeighborGraph) -> torch.Tensor:
        """`[B, C]`; a graph without charge or spin is of neutral systems, or of singlets."""
        none = batch.cells.new_zeros(batch.num_systems)
        charge = none if batch.charge is None else batch.charge
        unpaired = none if batch.spin is None else batch.spin - 1
        return torch.stack([charge.clamp(min=0), (-charge).clamp(min=0), unpaired], 1) @ self.weight.mT

    def untrained(self, charge: float, spin: float) -> str | None:
        """The part of a state that no system has trained, in words; None if there is none."""
        given = {"positive charge": charge > 0, "negative charge": charge < 0, "unpaired electrons": spin != 1}
        trained = (self.weight != 0).any(0).tolist()
        return next((name for (name, used), known in zip(given.items(), trained, strict=True) if used > known), None)
