"""What layers need to know of an edge, computed once per model call."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.ops.edge_geometry import edge_geometry


class EdgeGeometry(NamedTuple):
    """harmonics [E, (lmax+1)²], radial [E, n], envelope [E], and the edges they belong to."""

    harmonics: torch.Tensor
    radial: torch.Tensor
    envelope: torch.Tensor
    edges: EdgeIndex

    @classmethod
    def from_vectors(
        cls, vectors: torch.Tensor, graph: NeighborGraph, lmax: int, n_radial: int, cutoff: float
    ) -> EdgeGeometry:
        """From edge vectors `[E, 3]` Å, differentiable in them."""
        return cls(*edge_geometry(vectors, lmax, n_radial, cutoff), graph.edges)
