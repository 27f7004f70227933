"""Tables of the compiled kernels for paths whose weight mixes channels, where it is the same for all samples.

The product is z = Q(P(x, y) W, y), with P and Q tensor products without a weight (`csrc/ops/tensor_product/
dense.h`). A path is contracted with its coupling

    by P    [2 l3 + 1, m1 m2] · W [m1 m2, m3] per sample, the paths to one entry of the output side by side
    by Q    [2 l1 + 1, m1] · W [m1, m2 m3], the paths from one entry of x side by side

whichever takes less work. The other one of P and Q copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from sdas_kernels.constants import constant
from sdas_kernels.ops.tensor_product.spec import Instruction, TensorProductSpec
from sdas_kernels.ops.tensor_product.tables import (
    DENSE,
    NOTHING,
    OUT,
    Path,
    Tables,
    View,
    X,
    Y,
    build,
    entry_gaps,
    entry_view,
    kernel_paths,
    unreached,
)

BLOCK_BYTES = 1 << 19  # of products and mixed features, to stay in the second cache together with W
PADDING = 16  # `matrix_padding` of the kernels
ROWS = 6  # `tile_rows` of the kernels
COUPLING_COST = 4  # of a multiply-add with a coefficient of a coupling, in those of a matrix product


class Matrix(NamedTuple):
    """Fields of `TensorProductMatrix`."""

    rows: int
    depth: int
    columns: int
    products: int
    mixed: int
    weight: int
    transposed: int
    coupled: bool


@dataclass(frozen=True)
class DenseTables:
    """P, Q, the matrices between them, and what else the kernels take: sizes, and arrays by name."""

    inner: Tables
    outer: Tables
    matrices: tuple[Matrix, ...]
    sizes: dict[str, int]
    arrays: dict[str, Tensor]


class _Part(NamedTuple):
    """A path of the specification as a part of a matrix: place of its weight, first row and column, and shape."""

    path: Instruction
    where: slice
    coupled: bool
    row: int
    column: int
    shape: tuple[int, int]


@constant
def dense_tables(text: str, dtype: torch.dtype) -> DenseTables:
    """The tables of those paths of a specification whose weight mixes channels."""
    s = TensorProductSpec.parse(text)
    groups = _groups(s)
    matrices = _matrices(groups, s)
    products = sum(m.rows * _padded(m.depth) for m in matrices)
    mixed = sum(m.rows * _padded(m.columns) for m in matrices)
    by_matrices = sum(m.depth * _padded(m.columns) for m in matrices)
    pairs = list(zip(groups, matrices, strict=True))
    inner = [family for members, m in pairs for family in _inner(members, m, s)]
    outer = [family for members, m in pairs for family in _outer(members, m, s)]
    parts = [_place(part, m) for members, m in pairs for part in members]
    p = build(inner, entry_gaps(inner, s), s, products, dtype)
    out_gaps = [(OUT, *gap) for gap in unreached(outer, s.slices_out, OUT)]
    q = build(outer, [(Y, 0, s.dims[1]), *out_gaps], s, s.dims[2], dtype)
    groups_of_rows = BLOCK_BYTES // (dtype.itemsize * max(1, products + mixed)) // ROWS
    sizes = {
        "matrices": len(matrices),
        "parts": len(parts),
        "block": ROWS * min(max(groups_of_rows, 1), 16),  # samples worked on at a time
        "by_matrices": by_matrices,
        "numbers": by_matrices + sum(m.columns * _padded(m.depth) for m in matrices),
    }
    arrays = {"matrix": torch.tensor(matrices, dtype=torch.int64), "part": torch.tensor(parts, dtype=torch.int64)}
    return DenseTables(p, replace(q, sizes=q.sizes | {"dim1": mixed}), matrices, sizes, arrays)


def _padded(n: int) -> int:
    return -(-n // PADDING) * PADDING


def _groups(s: TensorProductSpec) -> list[list[_Part]]:
    """The parts of each matrix."""
    groups: dict[tuple[bool, int], list[_Part]] = {}
    for path, where in zip(s.instructions, s.weight_slices, strict=True):
        if path.connection_mode not in DENSE or where is None or not prod(path.path_shape):
            continue
        coupled = _coupled_by_q(path, s)
        parts = groups.setdefault((coupled, path.i_in1 if coupled else path.i_out), [])
        row, column = 0, 0
        if coupled:
            column = parts[-1].column + parts[-1].shape[1] if parts else 0
            shape = path.path_shape[0], prod(path.path_shape[1:])
        else:
            row = parts[-1].row + parts[-1].shape[0] if parts else 0
            shape = prod(path.path_shape[:-1]), path.path_shape[-1]
        parts.append(_Part(path, where, coupled, row, column, shape))
    return list(groups.values())


def _coupled_by_q(path: Instruction, s: TensorProductSpec) -> bool:
    (m1, ir1), _, (m3, ir3) = s.entries(path)
    saved = (ir3.dim - ir1.dim) * m1 * m3
    return path.connection_mode == "uvw" and saved > COUPLING_COST * ir1.dim * ir3.dim * max(m3 - m1, 0)


def _matrices(groups: list[list[_Part]], s: TensorProductSpec) -> tuple[Matrix, ...]:
    found: list[Matrix] = []
    products = mixed = weight = transposed = 0
    for parts in groups:
        coupled, last = parts[0].coupled, parts[-1]
        rows = s.entries(last.path)[0 if coupled else 2][1].dim
        depth, columns = last.row + last.shape[0], last.column + last.shape[1]
        found.append(Matrix(rows, depth, columns, products, mixed, weight, transposed, coupled))
        products += rows * _padded(depth)
        mixed += rows * _padded(columns)
        weight += depth * _padded(columns)
        transposed += columns * _padded(depth)
    return tuple(m._replace(transposed=weight + m.transposed) for m in found)


def _inner(parts: list[_Part], m: Matrix, s: TensorProductSpec) -> list[list[Path]]:
    """What of P makes a matrix's rows."""
    width = _padded(m.depth)

    def view(part: _Part) -> View:
        return View(OUT, part.row, m.products, m.rows * width, 1, width, part.shape[0], m.rows)

    if m.coupled:
        path = parts[0].path
        m1, ir = s.irreps_in1[path.i_in1]
        x = entry_view(X, s.dims[0], s.slices_in1[path.i_in1].start, m1, ir.dim)
        return [[_copy(x, view(parts[0]), ir.l)]]
    return [kernel_paths(p.path, DENSE[p.path.connection_mode], -1, s, view(p)) for p in parts]


def _outer(parts: list[_Part], m: Matrix, s: TensorProductSpec) -> list[list[Path]]:
    """What of Q takes a matrix's results to the output."""
    width, found = _padded(m.columns), []
    for part in parts if m.coupled else parts[:1]:
        path = part.path
        (_, ir1), (m2, ir2), (m3, ir3) = s.entries(path)
        z = entry_view(OUT, s.dims[2], s.slices_out[path.i_out].start, m3, ir3.dim)
        mixed = View(X, part.column, m.mixed, m.rows * width, 1, width, m3, m.rows)
        if not m.coupled:
            return [[_copy(mixed, z, ir3.l, in_place=True)]]
        coupling = (ir1.l, ir2.l, ir3.l, path.path_weight, False)
        family = []
        for v in range(m2):
            y = (Y, s.slices_in2[path.i_in2].start + v * ir2.dim, ir2.dim)
            family.append(Path(mixed._replace(offset=part.column + v * m3), y, z, -1, 1, coupling))
        found.append(family)
    return found


def _copy(source: View, target: View, l: int, in_place: bool = False) -> Path:
    return Path(source, NOTHING, target, -1, 1, (l, 0, l, sqrt(2 * l + 1), False), in_place)


def _place(part: _Part, m: Matrix) -> tuple[int, ...]:
    """Fields of `TensorProductPart`."""
    width, transposed_width = _padded(m.columns), _padded(m.depth)
    place = m.weight + part.row * width + part.column
    transposed = m.transposed + part.column * transposed_width + part.row
    return part.where.start, *part.shape, place, width, transposed, transposed_width
