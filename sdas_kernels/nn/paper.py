"""The layer as published, without any of the default layer's extensions."""

from __future__ import annotations

import torch
from torch import nn

from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.ops.edge_softmax import edge_softmax
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product
from sdas_kernels.paths import Paths


class PaperEmbedding(nn.Module):
    """First equivariant features: x_ilm = Σ_j w(d_ij) Y_lm(r̂_ij), w a learned combination of radial functions.

    Shapes: -> `[N, (lmax+1)², C]`.
    """

    def __init__(self, channels: int, lmax: int, n_radial: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.radial = nn.Parameter(torch.randn(channels, n_radial))

    def forward(self, geometry: EdgeGeometry) -> torch.Tensor:
        """The features of every atom."""
        channels, num_atoms = len(self.radial), geometry.edges.num_nodes
        every_edge = geometry.radial.new_ones(geometry.edges.num_edges, channels)
        gain = self.radial[:, None, :].expand(-1, self.lmax + 1, -1)
        ones = geometry.radial.new_ones(num_atoms, 1, channels)
        return neighbor_tensor_product(
            every_edge, geometry.radial, gain, ones, geometry.harmonics, geometry.edges, self.lmax
        )


class PaperLayer(nn.Module):
    """Attention over neighbors as published: plain softmax, no nonlinearity, scalars that see geometry through α only.

        B_ij^k = Σ_lm U_l^k x_ilm Y_lm(r̂_ij)
        α_ij^k = softmax_j( Q_i^k · K_j^k + B_ij^k )
        h_i    ← h_i + Σ_k Σ_j α_ij^k V^k h_j
        x_ilm  ← x_ilm + Σ_k Σ_j α_ij^k W_l^k (x_j ⊗ Y(r̂_ij))_lm

    Its energy jumps when a neighbor crosses the cutoff. Every head acts on all channels.

    Args: channels C, heads K, lmax, key_channels D; parity: only paths with l1 + l2 + l3 even in ⊗.
    Shapes: h `[N, C]`, x `[N, (lmax+1)², C]`.
    """

    def __init__(self, channels: int, heads: int, lmax: int, key_channels: int = 4, parity: bool = True) -> None:
        super().__init__()
        self.channels, self.heads, self.lmax, self.parity = channels, heads, lmax, parity
        self.query = nn.Linear(channels, heads * key_channels, bias=False)
        self.key = nn.Linear(channels, heads * key_channels, bias=False)
        self.direction_query = EquivariantLinear(lmax, channels, heads)
        self.scalar_value = nn.Linear(channels, heads * channels, bias=False)
        self.mixing = EquivariantLinear(lmax, heads * channels, channels)
        self.num_paths = len(Paths(lmax, lmax, lmax, parity).all)

    def forward(self, h: torch.Tensor, x: torch.Tensor, geometry: EdgeGeometry) -> tuple[torch.Tensor, torch.Tensor]:
        """New h and x."""
        edges, heads = geometry.edges, self.heads
        alpha = self.weights(h, x, geometry)
        one = h.new_ones(edges.num_edges, 1)
        unit_gain = h.new_ones(heads, self.lmax + 1, 1)

        scalars = self.scalar_value(h)[:, None, :]
        h_sum = neighbor_tensor_product(alpha, one, unit_gain[:, :1], scalars, one, edges, lmax_out=0)
        products = neighbor_tensor_product(
            alpha,
            one,
            unit_gain,
            x.repeat(1, 1, heads),
            geometry.harmonics,
            edges,
            lmax_out=self.lmax,
            even_only=self.parity,
            path_weight=x.new_ones(self.num_paths, heads * self.channels),
        )
        return h + h_sum.unflatten(2, (heads, -1)).sum((1, 2)), x + self.mixing(products)

    def weights(self, h: torch.Tensor, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """The attention weights α `[E, K]`."""
        query, key = (linear(h).unflatten(1, (self.heads, -1)) for linear in (self.query, self.key))
        joined = torch.cat([query, self.direction_query(x).transpose(1, 2)], 2)
        no_sink = h.new_full((h.shape[0], self.heads), -torch.inf)
        no_radial = geometry.radial[:, :0]
        no_envelope = torch.ones_like(geometry.envelope)
        return edge_softmax(joined, key, no_sink, geometry.harmonics, no_radial, no_envelope, geometry.edges)
