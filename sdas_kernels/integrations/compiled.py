"""What takes the place of the code that e3nn generates for a module: the same call, the same buffers, other kernels.

`e3nn.o3.TensorProduct` and `Linear` keep their weights themselves and hand them to a generated submodule
(`_compiled_main_left_right(x, y, weight)`, `_compiled_main(x, weight, bias)`). Only that submodule is replaced, so the
module, its subclass, its parameters and its state dict stay as they are.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn

from sdas_kernels.irreps import Irreps
from sdas_kernels.nn.tensor_product import broadcast_tensor_product
from sdas_kernels.ops.tensor_product import TensorProductSpec


class Compiled(nn.Module):
    """Holds the constants of the code that it replaces, since they are in the state dict; they are not read."""

    __e3nn_compile_mode__ = "unsupported"  # e3nn's way to refuse TorchScript with a clear error

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__()
        kept = replaced.state_dict()
        for name, buffer in replaced.named_buffers():
            if "." not in name:
                self.register_buffer(name, buffer, persistent=name in kept)


class CompiledTensorProduct(Compiled):
    """A tensor product along the paths of `spec`."""

    def __init__(self, spec: TensorProductSpec, replaced: nn.Module) -> None:
        super().__init__(replaced)
        self.spec = spec

    def forward(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`[.., dim1]`, `[.., dim2]`, `[numel]` or `[.., numel]` -> `[.., dim_out]`; leading axes broadcast."""
        return broadcast_tensor_product(x, y, weight, self.spec)


class LinearPath(NamedTuple):
    """One path of a linear map: entry `i_in` to entry `i_out`, times a factor."""

    i_in: int
    i_out: int
    factor: float


class _Block(NamedTuple):
    """All that one output entry sums: columns of x, their weight `[mul_in, mul_out]`, one factor."""

    columns: slice
    weight: slice
    mul_in: int
    factor: float


class CompiledLinear(Compiled):
    """A linear map of irreps, one matrix product for all entries that lie side by side and end in the same entry.

        y[.., w, m] = Σ_paths f Σ_u W[u, w] x[.., u, m] + b[w] δ_l0

    Weights lie path after path, `biases` names the output entries that have one.
    """

    def __init__(
        self, irreps_in: Irreps, irreps_out: Irreps, paths: list[LinearPath], biases: list[int], replaced: nn.Module
    ) -> None:
        super().__init__(replaced)
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.blocks = _blocks(irreps_in, irreps_out, paths)
        stops = [0]
        for i_out in biases:
            stops.append(stops[-1] + irreps_out[i_out].mul)
        self.biases = {i_out: slice(*ends) for i_out, ends in zip(biases, pairwise(stops), strict=True)}

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """`[.., irreps_in.dim]`, flat weight, flat bias -> `[.., irreps_out.dim]`."""
        rows = x.reshape(prod(x.shape[:-1]), self.irreps_in.dim)
        parts = [self._entry(i_out, rows, weight.flatten(), bias.flatten()) for i_out in range(len(self.irreps_out))]
        parts = parts or [rows.new_zeros(len(rows), 0)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).reshape(*x.shape[:-1], self.irreps_out.dim)

    def _entry(self, i_out: int, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """One entry of the output, `[B, mul · dim]`."""
        mul, ir = self.irreps_out[i_out]
        total = None
        for block in self.blocks[i_out]:
            w = weight[block.weight].view(block.mul_in, mul) * block.factor
            by_channel = x[:, block.columns].unflatten(1, (block.mul_in, ir.dim)).transpose(1, 2)
            part = (by_channel.reshape(-1, block.mul_in) @ w).view(len(x), ir.dim, mul)
            total = part if total is None else total + part
        if i_out in self.biases:
            constant = bias[self.biases[i_out]].view(1, 1, mul)
            total = constant.expand(len(x), 1, mul) if total is None else total + constant
        return x.new_zeros(len(x), mul * ir.dim) if total is None else total.transpose(1, 2).flatten(1)


def _blocks(irreps_in: Irreps, irreps_out: Irreps, paths: list[LinearPath]) -> list[list[_Block]]:
    """The blocks of every output entry, paths with neighboring columns and neighboring weights joined."""
    columns = irreps_in.slices()
    found: list[list[_Block]] = [[] for _ in irreps_out]
    start = 0
    for i_in, i_out, factor in paths:
        mul = irreps_in[i_in].mul
        where, weight = columns[i_in], slice(start, start + mul * irreps_out[i_out].mul)
        start = weight.stop
        if weight.stop == weight.start:
            continue
        block, entry = _Block(where, weight, mul, factor), found[i_out]
        before = entry[-1] if entry else None
        if before and (before.columns.stop, before.weight.stop, before.factor) == (where.start, weight.start, factor):
            joined_columns, joined_weight = slice(before.columns.start, where.stop), slice(before.weight.start, start)
            entry[-1] = _Block(joined_columns, joined_weight, before.mul_in + mul, factor)
        else:
            entry.append(block)
    return found


def tensor_product_spec(module: Any) -> TensorProductSpec:
    """The specification of an e3nn tensor product, whose `path_weight` holds the whole factor of a path.

    Raises `ValueError` for what this library has no kernel for, such as degrees beyond its table.
    """
    irreps = (Irreps(module.irreps_in1), Irreps(module.irreps_in2), Irreps(module.irreps_out))
    paths = [(i.i_in1, i.i_in2, i.i_out, i.connection_mode, i.has_weight, i.path_weight) for i in module.instructions]
    return TensorProductSpec.of(*irreps, paths)
