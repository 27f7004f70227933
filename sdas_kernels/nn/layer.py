"""The default layer of the SDAS model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sdas_kernels.arguments import switches
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention
from sdas_kernels.ops.checks import check_features, check_floating
from sdas_kernels.paths import SquarePaths, square_table
from sdas_kernels.segment import Segments, gather


class SDASLayer(nn.Module):
    """Neighbor attention, then a node update; both read normalized features and add to the residual stream.

        x ← x + NeighborAttention(norm(x))
        x ← x + NodeProduct(norm(x))            if there is one
        x ← x + NodeUpdate(norm(x))

    Args: as `NeighborAttention`; `node_product` puts a product between the two halves, from lmax 2 on, below which it
    has no paths; `node_update=False` leaves the second half out.
    """

    def __init__(
        self, channels: int, lmax: int, node_product: bool = False, node_update: bool = True, **attention: Any
    ) -> None:
        super().__init__()
        switches("SDASLayer", node_product=node_product, node_update=node_update)
        self.norm = EquivariantRMSNorm(lmax)
        self.attention = NeighborAttention(channels, lmax=lmax, **attention)
        self.product = NodeProduct(channels, lmax) if node_product and lmax >= 2 else None
        self.update = NodeUpdate(channels, lmax) if node_update else None

    def forward(self, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        x = x + self.attention(self.norm(x), geometry)
        if self.product is not None:
            x = x + self.product(self.norm(x))
        return x if self.update is None else x + self.update(self.norm(x))


class EquivariantRMSNorm(nn.Module):
    """Divide features by one invariant: the root of the mean over degrees of the mean square over components.

    x_i / √( mean_l mean_{m,c} x_ilmc² + ε )
    """

    row_count: torch.Tensor

    def __init__(self, lmax: int, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon
        # (2l+1)(lmax+1) of each row: whole numbers survive a change of dtype, their inverses would not
        counts = [(2 * l + 1) * (lmax + 1) for l in range(lmax + 1) for _ in range(2 * l + 1)]
        self.register_buffer("row_count", torch.tensor(counts, dtype=torch.float64)[:, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        check_floating("EquivariantRMSNorm", x=x)
        if x.ndim != 3 or x.shape[1] != len(self.row_count) or x.device != self.row_count.device:
            raise ValueError(
                f"EquivariantRMSNorm: x must be [N, {len(self.row_count)}, C] on {self.row_count.device}, "
                f"got {list(x.shape)} on {x.device}"
            )
        mean_square = ((x * x).mean(2, keepdim=True) / self.row_count.to(x.dtype)).sum(1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.epsilon)


class NodeProduct(nn.Module):
    """The tensor product of an atom's features with themselves: it sees angles among all neighbors at once.

    z_path  = √(2 l3 + 1) CG(l1, l2, l3) x_l1 ⊗ x_l2          channel by channel, for the paths of `SquarePaths`
    out_l3  = Σ_{paths to l3} P_path z_path                   out_0 = 0

    Products of this kind are the heart of the atomic cluster expansion (R. Drautz, Phys. Rev. B 99, 014104, 2019) and
    of MACE (I. Batatia et al., NeurIPS 2022).

    Args:
        channels: C.
        lmax: highest degree, at least 2.
    """

    def __init__(self, channels: int, lmax: int) -> None:
        super().__init__()
        self.channels, self.lmax = channels, lmax
        self.paths = SquarePaths.of(lmax)
        widths = [count * channels for count in self.paths.counts[1:]]
        # half of what would keep the variance, as the product adds to a stream that the attention has added to
        self.mixing = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(width, channels) / math.sqrt(width)) for width in widths
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        check_features("NodeProduct", x, (self.lmax + 1) ** 2, self.channels, self.mixing[0])
        first, second, coefficients = square_table(self.paths, x.dtype, x.device)
        pairs = gather(x, Segments(first), dim=1) * gather(x, Segments(second, ascending=False), dim=1)
        z = torch.matmul(coefficients, pairs)
        blocks = [
            (z[:, rows].reshape(-1, len(weight)) @ weight).view(x.shape[0], -1, self.channels)
            for rows, weight in zip(self.paths.row_slices()[1:], self.mixing, strict=True)
        ]
        return nn.functional.pad(torch.cat(blocks, 1), (0, 0, 1, 0))


class NodeUpdate(nn.Module):
    """Nonlinearity: invariants of an atom's features drive new scalars, and gates on its other degrees.

    f = MLP([x_0, |x_1|², .., |x_L|²])
    out_0 = f_0,   out_l = f_l · (G_l x_l)
    """

    gate_degree: torch.Tensor

    def __init__(self, channels: int, lmax: int) -> None:
        super().__init__()
        width = channels * (lmax + 1)
        self.lmax = lmax
        self.mlp = nn.Sequential(nn.Linear(width, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, width))
        self.gated = EquivariantLinear(lmax, channels, channels)
        with torch.no_grad():
            self.gated.weight.mul_(0.5)
        degree = [l for l in range(1, lmax + 1) for _ in range(2 * l + 1)]
        self.register_buffer("gate_degree", torch.tensor(degree, dtype=torch.int64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        rows, channels = (self.lmax + 1) ** 2, self.gated.channels_in
        check_features("NodeUpdate", x, rows, channels, self.gated.weight)
        scalars, *others = x.split([2 * l + 1 for l in range(self.lmax + 1)], 1)
        invariants = torch.cat([scalars, *(block.square().sum(1, keepdim=True) for block in others)], 1)
        f = self.mlp(invariants.flatten(1)).view(invariants.shape)
        gated = self.gated.by_component(x)[1:].transpose(0, 1) * gather(f, Segments(self.gate_degree), dim=1)
        return torch.cat([f[:, :1], gated], 1)
