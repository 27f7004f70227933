"""Linear map of equivariant features: channels mix, components do not."""

from __future__ import annotations

import math

import torch
from torch import nn

from sdas_kernels.arguments import whole_number, whole_numbers
from sdas_kernels.ops.checks import check_like
from sdas_kernels.segment import Segments, gather


class EquivariantLinear(nn.Module):
    """One matrix per degree, the same for every order m, so that a rotated input gives the rotated output.

        y[.., lm, d] = Σ_c x[.., lm, c] W[l, c, d] + δ_l0 b[d]

    Args:
        lmax: highest degree.
        channels_in, channels_out: channels of every degree.
        bias: whether to add a learned constant to the scalars, the only components that may have one.

    Parameters: `weight [lmax+1, channels_in, channels_out]`, drawn from N(0, 1/channels_in), which keeps the variance
    of a feature; `bias [channels_out]`, zero at first, or None. Raises `TypeError`, `ValueError` for other sizes.
    """

    row_degree: torch.Tensor

    def __init__(self, lmax: int, channels_in: int, channels_out: int, bias: bool = False) -> None:
        super().__init__()
        owner = "EquivariantLinear"
        self.lmax = lmax = whole_number(owner, "lmax", lmax, 0)
        channels_in, channels_out = whole_numbers(owner, 1, channels_in=channels_in, channels_out=channels_out)
        self.channels_in, self.channels_out = channels_in, channels_out
        self.weight = nn.Parameter(torch.empty(lmax + 1, channels_in, channels_out))
        self.bias = nn.Parameter(torch.empty(channels_out)) if bias else None
        degrees = torch.arange(lmax + 1)
        self.register_buffer("row_degree", degrees.repeat_interleave(2 * degrees + 1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew; set the bias to zero."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.channels_in))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[.., M, channels_in]` -> `[.., M, channels_out]`, M = (lmax+1)². Raises `ValueError` for other shapes."""
        rows = (self.lmax + 1) ** 2
        check_like("EquivariantLinear", x, self.weight)
        if x.ndim < 2 or x.shape[-2:] != (rows, self.channels_in):
            raise ValueError(f"EquivariantLinear: x must be [.., {rows}, {self.channels_in}], got {list(x.shape)}")
        mixed = self.by_component(x.reshape(-1, rows, self.channels_in)).transpose(0, 1).contiguous()
        if self.bias is not None:
            mixed = mixed + nn.functional.pad(self.bias[None], (0, 0, 0, rows - 1))
        return mixed.reshape(*x.shape[:-1], self.channels_out)

    def by_component(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, M, channels_in]` -> `[M, N, channels_out]`, without the bias: as the product gives it, with no copy."""
        return torch.bmm(x.transpose(0, 1), gather(self.weight, Segments(self.row_degree)))

    def extra_repr(self) -> str:
        return f"lmax={self.lmax}, {self.channels_in} -> {self.channels_out}, bias={self.bias is not None}"
