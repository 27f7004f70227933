"""Tables from which the compiled kernels run a convolution, made once for each specification and dtype.

A kernel path takes one entry of x and one member of y to one entry of the output, channel by channel (`uvu`; of several
v, a path each). Its couplings become a list of pairs (k, i) of orders of output and input, each with the coefficients
that make the number M[k, i] of y's components; the transposed direction, from the output to x, has them as (i, k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.constants import constant
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product.spec import Instruction, TensorProductSpec

PADDING = 16  # `tensor_product_conv_padding` of the kernels


@dataclass(frozen=True)
class Direction:
    """What `reduce` and `edge` take besides the operands, to the receivers or transposed to the senders."""

    sizes: dict[str, int]
    arrays: dict[str, Tensor]


class Shape(NamedTuple):
    """What the work of a kernel path depends on: orders, channels, non-zero coefficients, whether M is a number."""

    d1: int
    d3: int
    mul: int
    terms: int
    diagonal: bool


class Tables(NamedTuple):
    """Both directions, and the paths' shapes."""

    to_receivers: Direction
    to_senders: Direction
    shapes: tuple[Shape, ...]


class _Path(NamedTuple):
    """One member of y of one path of the specification; `coupling [d1, d2, d3]` with the path's factor."""

    i_in1: int
    i_out: int
    mul: int
    weight: int
    weight_channel: int
    offset: int
    coupling: Tensor

    @property
    def diagonal(self) -> bool:
        """Whether y is a scalar there, and M its multiple of the identity."""
        return self.coupling.shape[1] == 1

    @property
    def shape(self) -> Shape:
        """Its shape."""
        d1, _, d3 = self.coupling.shape
        terms = 1 if self.diagonal else int((self.coupling != 0).sum())
        return Shape(d1, d3, self.mul, terms, self.diagonal)


@constant
def tables(text: str, dtype: torch.dtype) -> Tables | None:
    """The tables, or None for a specification that has paths of other modes than the kernels'."""
    s = TensorProductSpec.parse(text)
    if not all(serves(path, s) for path in s.instructions):
        return None
    paths = []
    for path, where in zip(s.instructions, s.weight_slices, strict=True):
        (m1, ir1), (m2, ir2), (_, ir3) = s.entries(path)
        coupling = path.path_weight * wigner_3j(ir1.l, ir2.l, ir3.l)
        for v in range(m2 if m1 else 0):
            weight, offset = where.start + v if where else -1, s.slices_in2[path.i_in2].start + v * ir2.dim
            paths.append(_Path(path.i_in1, path.i_out, m1, weight, m2, offset, coupling))
    return Tables(
        _direction(paths, s.irreps_in1, s.irreps_out, s, dtype, False),
        _direction(paths, s.irreps_out, s.irreps_in1, s, dtype, True),
        tuple(path.shape for path in paths),
    )


def serves(path: Instruction, s: TensorProductSpec) -> bool:
    """Whether a path is uvu, or of a mode that is the same where all multiplicities are one."""
    single = all(entry[0] == 1 for entry in s.entries(path))
    return path.connection_mode == "uvu" or (single and "<" not in path.connection_mode)


def _direction(
    paths: list[_Path], inputs: Irreps, outputs: Irreps, s: TensorProductSpec, dtype: torch.dtype, transposed: bool
) -> Direction:
    in_entries, in_rows, in_width = _entries(inputs)
    out_entries, out_rows, out_width = _entries(outputs)
    rows, counts, components, values = [], [], [], []
    pairs = 0
    for path in paths:
        ends = (path.i_out, path.i_in1) if transposed else (path.i_in1, path.i_out)
        coupling = path.coupling.permute(0, 2, 1) if transposed else path.coupling.permute(2, 0, 1)  # [out, in, d2]
        out_dim, in_dim, _ = coupling.shape
        matrix = coupling[:1, :1] if path.diagonal else coupling
        weight = (path.weight, path.weight_channel)
        rows.append([in_rows[ends[0]], out_rows[ends[1]], in_dim, out_dim, path.mul, *weight, pairs, path.diagonal])
        flat = matrix.flatten(0, 1)
        pair, component = flat.nonzero(as_tuple=True)
        counts.append(torch.bincount(pair, minlength=len(flat)))
        components.append(component + path.offset)
        values.append(flat[pair, component])
        pairs += len(flat)
    none = torch.empty(0)
    sizes = {
        "dim2": s.dims[1],
        "weight_numel": s.weight_numel,
        "in_dim": inputs.dim,
        "in_entries": len(in_entries),
        "in_width": in_width,
        "out_dim": outputs.dim,
        "out_entries": len(out_entries),
        "out_width": out_width,
        "paths": len(paths),
        "pairs": pairs,
        "work": sum(path.mul * path.coupling.shape[0] * path.coupling.shape[2] for path in paths),
    }
    starts = torch.nn.functional.pad(torch.cat([none.long(), *counts]).cumsum(0), (1, 0))
    arrays = {
        "in_entry": torch.tensor(in_entries, dtype=torch.int64),
        "out_entry": torch.tensor(out_entries, dtype=torch.int64),
        "path": torch.tensor(rows, dtype=torch.int64),
        "term_start": starts.to(torch.int32),
        "term_j": torch.cat([none, *components]).to(torch.int32),
        "term_value": torch.cat([none, *values]).to(dtype),
    }
    return Direction(sizes, arrays)


def _entries(irreps: Irreps) -> tuple[list[list[int]], list[int], int]:
    """Rows of `TensorProductConvEntry`, the packed row of each entry of the irreps, and the size of a packed node."""
    table, rows, width = [], [], 0
    for (mul, ir), where in zip(irreps, irreps.slices(), strict=True):
        rows.append(width)
        if mul:
            table.append([where.start, mul, ir.dim, width])
            width += ir.dim * -(-mul // PADDING) * PADDING
    return table, rows, width
