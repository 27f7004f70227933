"""Attention over neighbors whose values are tensor products: the module around `sdas_kernels.neighbor_attention`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sdas_kernels.arguments import switches, whole_number, whole_numbers
from sdas_kernels.clebsch_gordan import LMAX, VERSION
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.meaning import WithMeaning
from sdas_kernels.ops.checks import check_features
from sdas_kernels.ops.edge_softmax import edge_softmax
from sdas_kernels.ops.neighbor_attention import neighbor_attention
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product
from sdas_kernels.paths import Paths


class NeighborAttention(WithMeaning):
    """Each atom asks who is where, and sums what its neighbors answer.

        query_i = [q_i/√D | U x_i | P h_i]            h_i: the scalars of x_i
        z_i     = neighbor_attention(query, K h, sink, V x, W, geometry)
        out_l3  = Σ_{paths to l3} M_path z_path       ("full" path mixing; "channel": a weight per path and channel,
                                                       then one matrix per degree)

    Args:
        channels, heads: C and K; K must divide C.
        lmax: degrees of the input, of the harmonics and of the output.
        n_radial: radial functions per edge.
        key_channels: D, channels of query and key per head.
        scalar_source: values carry only scalars (the first layer, where there is nothing else yet).
        parity: keep natural parity, that is E(3) equivariance; False opens the odd paths, SE(3).
        attention: False weighs neighbors by the envelope alone.
        direction_query, radial_query: let the logit depend on where the neighbor is, and how far away.
        sink: a learned logit that may draw attention away from all neighbors.
        radial_gain: signed gain per head and degree as a function of distance; False passes α on unchanged.
        path_mixing: "full" or "channel".

    Shapes: x `[N, (lmax+1)², C]` -> `[N, (lmax+1)², C]`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        lmax: int,
        n_radial: int = 8,
        key_channels: int = 4,
        scalar_source: bool = False,
        parity: bool = True,
        attention: bool = True,
        direction_query: bool = True,
        radial_query: bool = True,
        sink: bool = True,
        radial_gain: bool = True,
        path_mixing: str = "full",
    ) -> None:
        super().__init__()
        owner = "NeighborAttention"
        sizes = {"channels": channels, "heads": heads, "n_radial": n_radial, "key_channels": key_channels}
        channels, heads, n_radial, key_channels = whole_numbers(owner, 1, **sizes)
        lmax = whole_number(owner, "lmax", lmax, 0, LMAX)
        scalar_source, parity, attention = switches(
            owner, scalar_source=scalar_source, parity=parity, attention=attention
        )
        parts = {
            "direction_query": direction_query,
            "radial_query": radial_query,
            "sink": sink,
            "radial_gain": radial_gain,
        }
        switches(owner, **parts)
        if channels % heads:
            raise ValueError(f"NeighborAttention: heads must divide channels, got {heads} heads, {channels} channels")
        if path_mixing not in ("full", "channel"):
            raise ValueError(f'NeighborAttention: path_mixing must be "full" or "channel", got {path_mixing!r}')
        self.channels, self.heads, self.lmax, self.n_radial = channels, heads, lmax, n_radial
        self.key_channels, self.parity = key_channels, parity
        self._meaning = {
            "heads": heads,
            "lmax": lmax,
            "n_radial": n_radial,
            "key_channels": key_channels,
            "parity": parity,
            "attention": attention,
            "scalar_source": scalar_source,
            "path_mixing": path_mixing,
            **{name: bool(value) for name, value in parts.items()},
            "clebsch_gordan": VERSION,
        }
        self.value_lmax = 0 if scalar_source else lmax
        self.paths = Paths(self.value_lmax, lmax, lmax, even_only=parity)

        self.has_attention = attention
        if attention:
            # query, key, radial query and sink of every head, from the scalars by one matrix product
            self.logit_sizes = [
                heads * key_channels,
                heads * key_channels,
                heads * n_radial if radial_query else 0,
                heads if sink else 0,
            ]
            self.logits = nn.Linear(channels, sum(self.logit_sizes))
        self.direction_query = EquivariantLinear(lmax, channels, heads) if attention and direction_query else None
        self.value = EquivariantLinear(self.value_lmax, channels, channels)
        self.radial_gain = nn.Parameter(0.5 * torch.randn(heads, lmax + 1, n_radial)) if radial_gain else None

        self.path_weight: nn.Parameter | None = None
        self.mixing: nn.ParameterList | EquivariantLinear
        if path_mixing == "full":
            self.mixing = nn.ParameterList(
                nn.Parameter(torch.randn(count * channels, channels) / math.sqrt(count * channels))
                for count in self.paths.counts
            )
        else:
            scale = [1 / math.sqrt(count) for count in self.paths.counts for _ in range(count)]
            self.path_weight = nn.Parameter(torch.randn(len(scale), channels) * torch.tensor(scale)[:, None])
            self.mixing = EquivariantLinear(lmax, channels, channels)

    def meaning(self) -> dict[str, Any]:
        """Arguments that shapes do not always tell, and the version of the coefficients."""
        return self._meaning

    def forward(self, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        check_features("NeighborAttention", x, (self.lmax + 1) ** 2, self.channels, self.value.weight)
        if x.shape[0] != geometry.edges.num_nodes:
            raise ValueError(
                f"NeighborAttention: x must be [N, ..] with N = {geometry.edges.num_nodes}, got {list(x.shape)}"
            )
        source = x[:, : (self.value_lmax + 1) ** 2]
        z = self._attend(x, self.value(source), geometry)
        if isinstance(self.mixing, EquivariantLinear):
            return self.mixing(z)
        sizes = [(2 * l + 1) * count for l, count in enumerate(self.paths.counts)]
        blocks = [
            (block.reshape(-1, weight.shape[0]) @ weight).view(x.shape[0], -1, self.channels)
            for block, weight in zip(z.split(sizes, 1), self.mixing, strict=True)
        ]
        return torch.cat(blocks, 1)

    def weights(self, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """The attention weights α `[E, K]`, for looking at."""
        if not self.has_attention:
            return geometry.envelope[:, None].expand(-1, self.heads)
        query, key, sink = self._queries(x)
        return edge_softmax(query, key, sink, geometry.harmonics, geometry.radial, geometry.envelope, geometry.edges)

    def _attend(self, x: torch.Tensor, value: torch.Tensor, g: EdgeGeometry) -> torch.Tensor:
        end = (g.edges, self.lmax, self.parity, self.path_weight)
        if self.has_attention and self.radial_gain is not None:
            query, key, sink = self._queries(x)
            operands = (query, key, sink, value, self.radial_gain, g.harmonics, g.radial, g.envelope)
            return neighbor_attention(*operands, *end)
        radial: torch.Tensor = g.radial
        gain: torch.Tensor | None = self.radial_gain
        if gain is None:
            radial, gain = x.new_ones(g.edges.num_edges, 1), x.new_ones(self.heads, self.lmax + 1, 1)
        return neighbor_tensor_product(self.weights(x, g), radial, gain, value, g.harmonics, *end)

    def _queries(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query `[N, K, D + M + n]`, key `[N, K, D]`, sink `[N, K]`."""
        query, key, radial, sink = self.logits(x[:, 0]).split(self.logit_sizes, 1)
        of_heads = (x.shape[0], self.heads, -1)
        if self.direction_query is not None:
            direction = self.direction_query.by_component(x).permute(1, 2, 0)
        else:
            direction = x.new_zeros(x.shape[0], self.heads, x.shape[1])
        radial = radial.view(of_heads) if radial.shape[1] else x.new_zeros(x.shape[0], self.heads, self.n_radial)
        joined = torch.cat([query.view(of_heads) / math.sqrt(self.key_channels), direction, radial], 2)
        if not sink.shape[1]:
            sink = x.new_full((x.shape[0], self.heads), -torch.inf)
        return joined, key.view(of_heads), sink
