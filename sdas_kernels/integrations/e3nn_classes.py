"""Subclasses of e3nn's modules, for those that have no generated code to exchange. Importing this imports e3nn."""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.util.codegen import CodeGenMixin

from sdas_kernels.integrations.convolution import edges_of
from sdas_kernels.nn.spherical_harmonics import rows_of_degrees
from sdas_kernels.ops.spherical_harmonics import spherical_harmonics
from sdas_kernels.ops.tensor_product_conv import tensor_product_conv

__all__ = ["CodeGenMixin", "SphericalHarmonics", "TensorProductConv", "o3"]


class SphericalHarmonics(o3.SphericalHarmonics):
    """e3nn's module with this library's forward."""

    __e3nn_compile_mode__ = "unsupported"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[.., 3]` -> `[.., irreps_out.dim]`."""
        rows = spherical_harmonics(x, self._lmax, self.normalize, self.normalization)
        return rows_of_degrees(rows, self._ls_list)


class TensorProductConv(o3.TensorProduct):
    """e3nn's module, already swapped, as the convolution of a block of MACE."""

    __e3nn_compile_mode__ = "unsupported"

    def forward(  # type: ignore[override]  # as MACE calls it
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, edge_index: torch.Tensor
    ) -> torch.Tensor:
        """`[N, dim1]`, `[E, dim2]`, `[E, numel]`, `[2, E]` sorted by receiver -> `[N, dim_out]`."""
        spec = self._compiled_main_left_right.spec
        return tensor_product_conv(x, y, weight, edges_of(edge_index, len(x)), spec)
