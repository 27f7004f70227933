"""Subclasses of e3nn's modules, for those that have no generated code to exchange. Importing this imports e3nn."""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.util.codegen import CodeGenMixin

from sdas_kernels.nn.spherical_harmonics import rows_of_degrees
from sdas_kernels.ops.spherical_harmonics import spherical_harmonics

__all__ = ["CodeGenMixin", "SphericalHarmonics", "o3"]


class SphericalHarmonics(o3.SphericalHarmonics):
    """e3nn's module with this library's forward."""

    __e3nn_compile_mode__ = "unsupported"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[.., 3]` -> `[.., irreps_out.dim]`."""
        rows = spherical_harmonics(x, self._lmax, self.normalize, self.normalization)
        return rows_of_degrees(rows, self._ls_list)
