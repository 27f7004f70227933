"""Spherical harmonics as a module, with the arguments and defaults of e3nn's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.irreps import Irrep, Irreps
from sdas_kernels.ops.spherical_harmonics import NORMALIZATIONS, spherical_harmonics


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics of the degrees asked for, a drop-in for `e3nn.o3.SphericalHarmonics`.

    Args:
        irreps_out: an `Irreps` or its string, whose degrees may come in any order and repeatedly; or a list of degrees;
            or one degree. An integer l means degree l alone: write `range(lmax + 1)` or
            `Irreps.spherical_harmonics(lmax)` for all degrees up to lmax.
        normalize: evaluate at r/|r|, and zero for the degrees above 0 where r = 0.
        normalization: "integral" (default), "component" or "norm"; see `sdas_kernels.ops.spherical_harmonics`.
        irreps_in: "1o", a vector, or "1e", a pseudovector; by default whichever fits `irreps_out`.

    `irreps_in` and `irreps_out` are attributes. Raises `ValueError` for parities that do not fit, degrees out of range
    or an unknown normalization.
    """

    def __init__(
        self, irreps_out: Any, normalize: bool, normalization: str = "integral", irreps_in: Any = None
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"SphericalHarmonics: normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}"
            )
        one_irrep = hasattr(irreps_out, "l")  # such as e3nn's Irrep, itself a tuple of two integers
        degrees_only = isinstance(irreps_out, int) or not (
            isinstance(irreps_out, str) or one_irrep or any(not isinstance(l, int) for l in irreps_out)
        )
        if degrees_only:
            degrees = [irreps_out] if isinstance(irreps_out, int) else list(irreps_out)
            wanted = Irreps()
        else:
            wanted = Irreps(irreps_out)
            degrees = wanted.ls
        if not degrees or min(degrees) < 0 or max(degrees) > LMAX:
            raise ValueError(f"SphericalHarmonics: degrees must be 0..{LMAX} and at least one, got {degrees}")
        if irreps_in is None:
            irreps_in = "1e" if any(ir.l % 2 and ir.p == 1 for _, ir in wanted) else "1o"
        self.irreps_in = Irreps(irreps_in)
        if self.irreps_in not in (Irreps("1o"), Irreps("1e")):
            raise ValueError(f"SphericalHarmonics: irreps_in must be '1o' or '1e', got '{self.irreps_in}'")
        parity = self.irreps_in[0].ir.p
        for _, ir in wanted:
            if ir.p != parity**ir.l:
                raise ValueError(
                    f"SphericalHarmonics: irreps_out has {ir}, but harmonics of '{self.irreps_in}' of degree {ir.l} "
                    f"are {Irrep(ir.l, parity**ir.l)}"
                )
        self.irreps_out = Irreps([(1, Irrep(l, parity**l)) for l in degrees]).simplify()
        self.normalize, self.normalization = normalize, normalization
        self.lmax = max(degrees)
        self._degrees = degrees

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[.., 3]` -> `[.., irreps_out.dim]`. Raises `TypeError`, `ValueError` as the operator does."""
        return rows_of_degrees(spherical_harmonics(x, self.lmax, self.normalize, self.normalization), self._degrees)

    def extra_repr(self) -> str:
        return (
            f"{self.irreps_in} -> {self.irreps_out}, normalize={self.normalize}, normalization={self.normalization!r}"
        )


def rows_of_degrees(rows: torch.Tensor, degrees: list[int]) -> torch.Tensor:
    """Of harmonics `[.., (lmax+1)²]` the rows of the degrees asked for, which may repeat: `[.., Σ (2l+1)]`."""
    runs = _runs(degrees)
    if runs == [(0, rows.shape[-1])]:
        return rows
    return torch.cat([rows[..., start:stop] for start, stop in runs], -1)


def _runs(degrees: list[int]) -> list[tuple[int, int]]:
    """Rows of the harmonics that the degrees take, consecutive degrees joined."""
    runs = [[degrees[0], degrees[0]]]
    for previous, l in pairwise(degrees):
        if l == previous + 1:
            runs[-1][1] = l
        else:
            runs.append([l, l])
    return [(first**2, (last + 1) ** 2) for first, last in runs]
