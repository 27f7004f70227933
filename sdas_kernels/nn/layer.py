"""The default layer of the SDAS model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sdas_kernels.arguments import switches
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention
from sdas_kernels.ops.checks import check_features, check_floating
from sdas_kernels.segment import Segments, gather


class SDASLayer(nn.Module):
    """Neighbor attention, then a node update; both read normalized features and add to the residual stream.

        x ← x + NeighborAttention(norm(x))
        x ← x + NodeUpdate(norm(x))

    Args: as `NeighborAttention`; `node_update=False` leaves the second half out.
    """

    def __init__(self, channels: int, lmax: int, node_update: bool = True, **attention: Any) -> None:
        super().__init__()
        switches("SDASLayer", node_update=node_update)
        self.norm = EquivariantRMSNorm(lmax)
        self.attention = NeighborAttention(channels, lmax=lmax, **attention)
        self.update = NodeUpdate(channels, lmax) if node_update else None

    def forward(self, x: torch.Tensor, geometry: EdgeGeometry) -> torch.Tensor:
        """`[N, M, C]` -> `[N, M, C]`."""
        x = x + self.attention(self.norm(x), geometry)
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
