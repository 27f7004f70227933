"""The layer as published, without any of the default layer's extensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sdas_kernels.arguments import switches, whole_number, whole_numbers
from sdas_kernels.clebsch_gordan import VERSION
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.meaning import WithMeaning
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


class PaperAttention(WithMeaning):
    """Attention over neighbors as published, and what the scalars make of it: the last layer, which has no other use.

        B_ij^k = Σ_lm U_l^k x_ilm Y_lm(r̂_ij)
        α_ij^k = softmax_j( Q_i^k · K_j^k + B_ij^k )
        h_i    ← h_i + Σ_k Σ_j α_ij^k V^k h_j

    Args: channels C, heads K, lmax, key_channels D; parity as of `PaperLayer`.
    Shapes: h `[N, C]`, x `[N, (lmax+1)², C]`.
    """

    def __init__(self, channels: int, heads: int, lmax: int, key_channels: int = 4, parity: bool = True) -> None:
        super().__init__()
        owner, sizes = type(self).__name__, {"channels": channels, "heads": heads, "key_channels": key_channels}
        self.channels, self.heads, key_channels = whole_numbers(owner, 1, **sizes)
        self.lmax = whole_number(owner, "lmax", lmax, 0)
        (self.parity,) = switches(owner, parity=parity)
        self.query = nn.Linear(self.channels, self.heads * key_channels, bias=False)
        self.key = nn.Linear(self.channels, self.heads * key_channels, bias=False)
        self.direction_query = EquivariantLinear(self.lmax, self.channels, self.heads)
        self.scalar_value = nn.Linear(self.channels, self.heads * self.channels, bias=False)

    def meaning(self) -> dict[str, Any]:
        """Arguments that shapes do not always tell, and the version of the coefficients."""
        return {"heads": self.heads, "lmax": self.lmax, "parity": self.parity, "clebsch_gordan": VERSION}

    def forward(self, h: torch.Tensor, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """New h."""
        return self.scalars(h, self.weights(h, x, geometry), geometry)

    def weights(self, h: torch.Tensor, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """The attention weights α `[E, K]`."""
        query, key = (linear(h).unflatten(1, (self.heads, -1)) for linear in (self.query, self.key))
        joined = torch.cat([query, self.direction_query(x).transpose(1, 2)], 2)
        no_sink = h.new_full((h.shape[0], self.heads), -torch.inf)
        no_radial = geometry.radial[:, :0]
        no_envelope = torch.ones_like(geometry.envelope)
        return edge_softmax(joined, key, no_sink, geometry.harmonics, no_radial, no_envelope, geometry.edges)

    def scalars(self, h: torch.Tensor, alpha: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """New h by the weights α."""
        one, unit_gain = h.new_ones(geometry.edges.num_edges, 1), h.new_ones(self.heads, 1, 1)
        values = self.scalar_value(h)[:, None, :]
        h_sum = neighbor_tensor_product(alpha, one, unit_gain, values, one, geometry.edges, lmax_out=0)
        return h + h_sum.unflatten(2, (self.heads, -1)).sum((1, 2))


class PaperLayer(PaperAttention):
    """The layer as published: plain softmax, no nonlinearity, scalars that see geometry through α only.

        h_i    ← h_i + Σ_k Σ_j α_ij^k V^k h_j                                  α as of `PaperAttention`
        x_ilm  ← x_ilm + Σ_k Σ_j α_ij^k W_l^k (x_j ⊗ Y(r̂_ij))_lm

    Its energy jumps when a neighbor crosses the cutoff. Every head acts on all channels.

    Args: channels C, heads K, lmax, key_channels D; parity: only paths with l1 + l2 + l3 even in ⊗.
    Shapes: h `[N, C]`, x `[N, (lmax+1)², C]`.
    """

    def __init__(self, channels: int, heads: int, lmax: int, key_channels: int = 4, parity: bool = True) -> None:
        super().__init__(channels, heads, lmax, key_channels, parity)
        self.mixing = EquivariantLinear(self.lmax, self.heads * self.channels, self.channels)
        self.num_paths = len(Paths(self.lmax, self.lmax, self.lmax, self.parity).all)

    def forward(  # type: ignore[override]  # what follows reads the features too
        self, h: torch.Tensor, x: torch.Tensor, geometry: EdgeGeometry
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New h and x."""
        alpha = self.weights(h, x, geometry)
        products = neighbor_tensor_product(
            alpha,
            h.new_ones(geometry.edges.num_edges, 1),
            h.new_ones(self.heads, self.lmax + 1, 1),
            x.repeat(1, 1, self.heads),
            geometry.harmonics,
            geometry.edges,
            lmax_out=self.lmax,
            even_only=self.parity,
            path_weight=x.new_ones(self.num_paths, self.heads * self.channels),
        )
        return self.scalars(h, alpha, geometry), x + self.mixing(products)
