"""The convolution of NequIP, MACE and their like as a module, with e3nn's arguments and weight order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.irreps import Irreps, MulIrrep
from sdas_kernels.nn.tensor_product import TensorProduct
from sdas_kernels.ops.tensor_product_conv import tensor_product_conv

Path = tuple[int, int, int, str, bool]


class TensorProductConv(TensorProduct):
    """Sum over neighbors of tensor products, in place of a gather, `e3nn.o3.TensorProduct` and a scatter.

        z_i = Σ_{edges e = (i ← j)} Σ_paths a (W_e x_j ⊗ y_e)

    Args:
        irreps_in1: of the atoms' features x.
        irreps_in2: of what the edges carry, y: the spherical harmonics, as a rule.
        irreps_out: of the result.
        instructions: paths as in `TensorProduct`. By default every `uvu` path into an entry of `irreps_out` of the
            multiplicity of its first input, in the order of in1, in2, out; paths into one entry are added up.
            `uvu_paths_apart` gives those of NequIP and MACE, each with an entry of its own.
        shared_weights: False (default): every edge brings its own weights, as from a radial network.
        options: normalizations and variances, as in `TensorProduct`.

    Shapes: x `[N, irreps_in1.dim]`, y `[E, irreps_in2.dim]`, weight `[E, weight_numel]` -> `[N, irreps_out.dim]`.
    """

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        instructions: Iterable[Sequence[Any]] | None = None,
        shared_weights: bool = False,
        **options: Any,
    ) -> None:
        in1, in2, out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
        paths = uvu_paths(in1, in2, out) if instructions is None else instructions
        super().__init__(in1, in2, out, paths, shared_weights=shared_weights, **options)

    def forward(  # type: ignore[override]  # a graph joins the operands
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        weight: torch.Tensor | Sequence[torch.Tensor] | None,
        graph: NeighborGraph | EdgeIndex,
        weight_basis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`weight` is None where it is the module's own, or a hidden layer `[E, H]` with a basis `[H, weight_numel]`.

        Raises `ValueError` where a shape does not fit.
        """
        x, y = self._from_layout(x, y)
        flat = self._flat_weight(weight) if weight_basis is None else weight
        z = tensor_product_conv(x, y, flat, graph, self.spec, weight_basis)  # type: ignore[arg-type]  # checks it
        return self._to_layout(z)


def uvu_paths(irreps_in1: Any, irreps_in2: Any, irreps_out: Any) -> list[Path]:
    """Every `uvu` path into an entry of `irreps_out` that has the multiplicity of the path's first input."""
    in1, in2, out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
    return [
        (i, j, k, "uvu", True)
        for i, (mul, first) in enumerate(in1)
        for j, (_, second) in enumerate(in2)
        for k, entry in enumerate(out)
        if entry.mul == mul and entry.ir in first * second
    ]


def uvu_paths_apart(irreps_in1: Any, irreps_in2: Any, irreps_wanted: Any) -> tuple[Irreps, list[Path]]:
    """The irreps and paths that NequIP and MACE use: one entry per `uvu` path that leads to a wanted irrep.

    The entries are sorted. The paths, and so the weights, are in the order of in1, in2, irrep, which is NequIP's;
    MACE's is that of `sorted(paths, key=lambda path: path[2])`.
    """
    in1, in2, wanted = Irreps(irreps_in1), Irreps(irreps_in2), {entry.ir for entry in Irreps(irreps_wanted)}
    ends = [
        (i, j, MulIrrep(mul, ir))
        for i, (mul, first) in enumerate(in1)
        for j, (_, second) in enumerate(in2)
        for ir in first * second
        if ir in wanted
    ]
    out, place = Irreps([entry for _, _, entry in ends]).sort()
    return out, [(i, j, place[n], "uvu", True) for n, (i, j, _) in enumerate(ends)]
