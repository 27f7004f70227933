"""Pieces of a convolution that fit in a GPU thread's registers, one division for each contraction of `triton.py`."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch

from sdas_kernels.ops.tensor_product.pieces import Family, Pieces, Plan
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec
from sdas_kernels.ops.tensor_product.tables import kernel_paths
from sdas_kernels.ops.tensor_product_conv.tables import serves

BUDGET = 112  # numbers kept per channel, of each piece
BUDGET_F64 = 56  # a float64 takes two registers


class ConvolutionPieces(Pieces):
    """Families of `uvu` paths, divided for each contraction when it first asks."""

    @cached_property
    def to_receivers(self) -> Plan:
        """All results of a piece stay in registers. Where paths share a result, they stay together."""
        results = {family.path.out for family in self.families}
        families = self.from_first
        if len(results) < len(families):
            families = sorted(families, key=lambda f: (f.kind, f.path.out))
        return self.plan(families, lambda rows: 2 * (rows.first + rows.second) + rows.results + rows.result)

    @cached_property
    def to_senders(self) -> Plan:
        """The gradients by all first operands of a piece stay in registers."""
        return self.plan(self.from_first, lambda rows: rows.first + 2 * rows.second + 2 * rows.result)

    @cached_property
    def of_edges(self) -> Plan:
        """All gradients of a piece's results stay in registers."""
        return self.plan(self.from_first, lambda rows: 2 * rows.first + 3 * rows.second + rows.results)


@lru_cache(maxsize=1024)
def pieces(text: str, dtype: torch.dtype) -> ConvolutionPieces | None:
    """Of a specification, or None where it has paths of other modes than `uvu`."""
    s = TensorProductSpec.parse(text)
    if not all(serves(path, s) for path in s.instructions):
        return None
    found = []
    for path, where in zip(s.instructions, s.weight_slices, strict=True):
        family = kernel_paths(path, "uvu", where.start if where else -1, s, None)
        found += [Family.of(family)] if family else []
    return ConvolutionPieces(found, [], s.dims, BUDGET_F64 if dtype == torch.float64 else BUDGET)
