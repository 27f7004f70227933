"""How a specification is divided among kernels, and the tables from which the compiled ones run it, made once for each.

A kernel path multiplies channels by channels, with one number or one vector of channels on the other side (see
`csrc/ops/tensor_product/tensor_product.h`); one path of the specification becomes as many of them as its other side has
members. A path whose mode mixes channels (`uvw`, `uuw`) is split into its products p, computed by kernel paths without
a weight, and a matrix product with the weight; `pairs` modes (`uvu<v`, `u<vw`) have no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.constants import constant
from sdas_kernels.ops.tensor_product.spec import Instruction, TensorProductSpec

X, Y, OUT = 0, 1, 2
NOTHING = (Y, 0, 0)  # in place of a second operand: the path copies the first one

DENSE = {"uvw": "uvuv", "uuw": "uuu"}  # mode -> that of its products


class View(NamedTuple):
    """Fields of `TensorProductView`, but for the row."""

    array: int
    offset: int
    per_batch: int
    sample: int
    channel: int
    component: int
    mul: int
    dim: int


class Path(NamedTuple):
    """One kernel path: operands, result, place and stride of its weight (-1: none), coupling.

    `in_place`: a path that copies does so from rows of whole vectors, which no other path takes.
    """

    first: View
    second: View | tuple[int, int, int]  # a view, or array, offset and dim of a uniform operand
    out: View
    weight: int
    weight_channel: int
    coupling: tuple[int, int, int, float, bool]  # l1, l2, l3, factor, inputs exchanged
    in_place: bool = False

    @property
    def uniform(self) -> bool:
        """Whether the second operand has no channels."""
        return not isinstance(self.second, View) and not self.copies

    @property
    def copies(self) -> bool:
        """Whether there is no second operand."""
        return self.second == NOTHING


@dataclass(frozen=True)
class Tables:
    """What the kernels take besides the operands: sizes, and arrays by name. `flops`: per sample and order."""

    sizes: dict[str, int]
    arrays: dict[str, Tensor]
    flops: dict[str, int]


def build(
    families: list[list[Path]],
    gaps: Iterable[tuple[int, int, int]],
    s: TensorProductSpec,
    dim_out: int,
    dtype: torch.dtype,
) -> Tables:
    """Tables of some families of kernel paths. `gaps`: array, offset, size of what no path writes."""
    paths = _by_result([path for family in families for path in family])
    lane_views, out_views = _Rows(), _Rows()
    uniforms, row_views = _Rows(), _Rows()
    couplings: dict[tuple[int, int, int, float, bool], int] = {}
    index: list[int] = []
    values: list[Tensor] = []
    coupling_rows, counts = [], []
    path_rows: list[list[int]] = []
    path_start: list[int] = []
    matrices = 0
    for path in paths:
        if path.coupling not in couplings:
            couplings[path.coupling] = len(couplings)
            row, count = _coupling(path.coupling, index, values)
            coupling_rows.append(row)
            counts.append(count)
        number = couplings[path.coupling]
        row_view = row_views.place(path.first, 1) if path.in_place else -1
        first = 0 if path.in_place else lane_views.place(path.first, path.first.dim)
        if path.out not in out_views.rows:
            path_start.append(len(path_rows))
        out_views.place(path.out, path.out.dim)
        second, uniform = 0, path.uniform
        if isinstance(path.second, View):
            second = lane_views.place(path.second, path.second.dim)
        elif uniform:
            second = uniforms.place(path.second, path.second[2])
        place = [first, second, uniform, path.copies, row_view, path.first.array]
        path_rows.append([*place, path.out.mul, path.weight, path.weight_channel, number, matrices if uniform else 0])
        matrices += counts[number].entries if uniform else 0
    gap_rows = [gap for gap in gaps if gap[2]]
    sizes = {
        "dim1": s.dims[0],
        "dim2": s.dims[1],
        "dim_out": dim_out,
        "weight_numel": s.weight_numel,
        "lane_views": len(lane_views.rows),
        "lane_rows": lane_views.total,
        "out_views": len(out_views.rows),
        "uniforms": len(uniforms.rows),
        "uniform_rows": uniforms.total,
        "paths": len(paths),
        "matrices": matrices,
        "gaps": len(gap_rows),
        "max_mul": max((path.out.mul for path in paths), default=0),
    }
    arrays = {
        "lane_view": _int64([[*view, row] for view, row in lane_views.rows.items()]),
        "out_view": _int64([[*view, 0] for view in out_views.rows]),
        "row_view": _int64([[*view, 0] for view in row_views.rows]),
        "path_start": torch.tensor([*path_start, len(path_rows)], dtype=torch.int64),
        "uniform": _int64([[*uniform, row] for uniform, row in uniforms.rows.items()]),
        "gap": _int64(gap_rows),
        "path": _int64(path_rows),
        "coupling": _int64(coupling_rows),
        "index": torch.tensor(index, dtype=torch.int32),
        "values": torch.cat(values).to(dtype) if values else torch.empty(0, dtype=dtype),
    }
    flops = _flops([(path, counts[couplings[path.coupling]]) for path in paths])
    sizes["work"] = flops["forward"] // 2 + 1
    return Tables(sizes, arrays, flops)


class _Rows:
    """Rows of a scratch, given out in turn to whatever asks for the first time."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, ...], int] = {}
        self.total = 0

    def place(self, key: tuple[int, ...], size: int) -> int:
        if key not in self.rows:
            self.rows[key] = self.total
            self.total += size
        return self.rows[key]


def _by_result(paths: list[Path]) -> list[Path]:
    """Paths to one view of the output side by side."""
    first: dict[View, int] = {}
    for path in paths:
        first.setdefault(path.out, len(first))
    return sorted(paths, key=lambda path: first[path.out])


class _Count(NamedTuple):
    d1: int
    d2: int
    terms: int
    entries: int  # of a matrix


@constant
def scaled_coupling(l1: int, l2: int, l3: int, factor: float, exchanged: bool) -> Tensor:
    """A path's coefficients by components of its first and second operand and of its result."""
    c = factor * wigner_3j(l1, l2, l3)
    return c.transpose(0, 1).contiguous() if exchanged else c


def _coupling(
    key: tuple[int, int, int, float, bool], index: list[int], values: list[Tensor]
) -> tuple[list[int], _Count]:
    """Append one coupling; the row of `TensorProductCoupling`."""
    c = scaled_coupling(*key)
    d1, d2, d3 = c.shape
    diagonal = d2 == 1

    def put(numbers: Tensor) -> int:
        index.extend(numbers.tolist())
        return len(index) - len(numbers)

    def put_values(v: Tensor) -> int:
        place = sum(len(t) for t in values)
        values.append(v)
        return place

    matrix = c[:1, :, :1] if diagonal else c  # of y [i, j, k]: one number times the identity, or all
    places = matrix.permute(1, 2, 0).flatten(1)  # [j, k d1 + i]
    row = [d1, d2, d3, diagonal, places.shape[1]]
    for table in (places.T, places):  # the non-zero coefficients of each entry, and those of each component of s
        start = torch.nn.functional.pad(table.count_nonzero(1).cumsum(0), (1, 0))
        which, other = table.nonzero(as_tuple=True)
        row += [put(start), put(other), put_values(table[which, other])]
    return row, _Count(d1, d2, int(start[-1]), places.shape[1])


def _int64(rows: list[list[int]] | list[tuple[int, int, int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def _flops(paths: list[tuple[Path, _Count]]) -> dict[str, int]:
    """Per sample, all gradients wanted; the channels that exist, not the lanes that fill a vector.

    Counted as `csrc/ops/tensor_product/paths.h` writes them: M and the gradient by what it is made of,
    products with M, and what weights multiply.
    """
    forward = backward = double_backward = 0
    for path, (d1, d2, terms, entries) in paths:
        mul = path.out.mul
        if path.copies:
            forward, backward, double_backward = (n + mul * d1 for n in (forward, backward, double_backward))
            continue
        entries = d1 if d2 == 1 else entries
        matrix = 2 * terms * (1 if path.uniform else mul)
        forward += matrix + mul * (2 * entries + d1)
        backward += 2 * matrix + mul * (4 * entries + 5 * d1)
        double_backward += 3 * matrix + mul * (10 * entries + 12 * d1)
    return {"forward": forward, "backward": backward, "double_backward": double_backward}


def kernel_paths(path: Instruction, mode: str, weight: int, s: TensorProductSpec, out: View | None) -> list[Path]:
    """The kernel paths of one path of the specification in a channelwise mode, a family: alike but for regular steps.

    `weight`: the place of its first weight, -1 for none. `out`: all the path's results as channels of one view, u slow
    and v fast where the mode has both, in place of the entry of the output.
    """
    (m1, ir1), (m2, ir2), (m3, ir3) = s.entries(path)
    x = entry_view(X, s.dims[0], s.slices_in1[path.i_in1].start, m1, ir1.dim)
    y = entry_view(Y, s.dims[1], s.slices_in2[path.i_in2].start, m2, ir2.dim)
    out = out or entry_view(OUT, s.dims[2], s.slices_out[path.i_out].start, m3, ir3.dim)
    degrees = (ir1.l, ir2.l, ir3.l, path.path_weight)
    if mode == "uuu":
        return [Path(x, y, out, weight, 1, (*degrees, False))] if m1 else []
    lanes_of_x = mode == "uvu" or (mode == "uvuv" and m1 >= m2)
    lanes, others = (x, y) if lanes_of_x else (y, x)
    found = []
    for n in range(others.mul if lanes.mul else 0):
        # weight and product of (u, v) lie at u m2 + v
        first, step = (n, m2) if lanes_of_x else (n * m2, 1)
        target = out
        if mode == "uvuv":
            target = out._replace(offset=out.offset + first * out.channel, channel=step * out.channel, mul=lanes.mul)
        uniform = (others.array, others.offset + n * others.channel, others.dim)
        place = -1 if weight < 0 else weight + first
        found.append(Path(lanes, uniform, target, place, step, (*degrees, not lanes_of_x)))
    return found


def entry_view(array: int, sample: int, offset: int, mul: int, dim: int) -> View:
    return View(array, offset, 0, sample, dim, 1, mul, dim)


class Kernels(NamedTuple):
    """A backend's kernels: what makes tables of families of kernel paths, and what runs them on tensors by name."""

    build: Callable[..., Any]
    run: Callable[..., None]
    chunk_bytes: int  # of products at a time, before a matrix product
    shared: Any = None  # in place of `dense.py` where a weight is shared: a module like it, or None


class DenseEntry(NamedTuple):
    """Products that a matrix product takes to one entry of the output, an array [B, 2 l3 + 1, width]."""

    i_out: int
    mul: int
    dim: int
    offset: int  # per sample of the batch, where the array begins
    width: int
    paths: tuple[tuple[slice, slice, tuple[int, int]], ...]  # columns, place of the weight, its shape [columns, m3]


@dataclass(frozen=True)
class Parts:
    """How a specification is divided: channelwise kernels, kernels with a matrix product after them, reference."""

    text: str
    dtype: torch.dtype
    kernels: Kernels
    channel: Any  # tables, or None
    dense: Any
    channelwise: bool  # whether a path leads through `channel`, which else holds gaps alone
    entries: tuple[DenseEntry, ...]
    products: int  # numbers per sample that the matrix products take
    rest: TensorProductSpec | None
    rest_weight: tuple[slice, ...]  # where the weights of `rest` lie
    dim_out: int
    out_slices: tuple[slice, ...]
    untouched: frozenset[int]  # entries of the output that only `entries` reach and nobody else has written

    @property
    def dense_alone(self) -> bool:
        """Whether nothing else writes the output."""
        return not self.channelwise and self.rest is None

    def touched(self) -> Parts:
        """The same parts once every entry has been written."""
        return replace(self, untouched=frozenset())


@constant
def parts(text: str, dtype: torch.dtype, kernels: Kernels) -> Parts:
    """The parts of a specification, with the kernels' tables for a dtype."""
    s = TensorProductSpec.parse(text)
    channel: list[list[Path]] = []
    rest: list[Instruction] = []
    rest_weight: list[slice] = []
    dense: dict[int, list[tuple[Instruction, slice]]] = {}
    for path, where in zip(s.instructions, s.weight_slices, strict=True):
        mode, single = path.connection_mode, sum(p.i_out == path.i_out for p in s.instructions) == 1
        if mode in DENSE and where is not None:
            dense.setdefault(path.i_out, []).append((path, where))
        elif mode in ("uvu", "uvv", "uuu") or (mode == "uvuv" and single):
            channel.append(kernel_paths(path, mode, where.start if where is not None else -1, s, None))
        else:
            rest.append(path)
            rest_weight += [where] if where is not None else []
    products, entries, total = _dense(dense, s)
    rest_spec = TensorProductSpec(s.irreps_in1, s.irreps_in2, s.irreps_out, tuple(rest)) if rest else None
    reached = {p.i_out for p in s.instructions if p.connection_mode not in DENSE or not p.has_weight}
    untouched = frozenset(e.i_out for e in entries if e.i_out not in reached)
    skip = {s.slices_out[i].start for i in untouched if s.irreps_out[i].dim}
    gaps = entry_gaps(channel, s) + [
        (OUT, start, size) for start, size in unreached(channel, s.slices_out, OUT) if start not in skip
    ]
    return Parts(
        text,
        dtype,
        kernels,
        kernels.build(channel, gaps, s, s.dims[2], dtype) if channel or not rest else None,
        kernels.build(products, entry_gaps(products, s), s, total, dtype) if entries else None,
        any(channel),
        entries,
        total,
        rest_spec,
        tuple(rest_weight),
        s.dims[2],
        tuple(s.slices_out),
        untouched,
    )


def _dense(
    dense: dict[int, list[tuple[Instruction, slice]]], s: TensorProductSpec
) -> tuple[list[list[Path]], tuple[DenseEntry, ...], int]:
    products: list[list[Path]] = []
    entries, total = [], 0
    for i_out, members in dense.items():
        dim, mul = s.irreps_out[i_out].ir.dim, s.irreps_out[i_out].mul
        widths = [prod(path.path_shape[:-1]) for path, _ in members]
        width, column, columns = sum(widths), 0, []
        for (path, where), own in zip(members, widths, strict=True):
            view = View(OUT, column, total, dim * width, 1, width, own, dim)
            products.append(kernel_paths(path, DENSE[path.connection_mode], -1, s, view))
            columns.append((slice(column, column + own), where, (own, mul)))
            column += own
        entries.append(DenseEntry(i_out, mul, dim, total, width, tuple(columns)))
        total += dim * width
    return products, tuple(entries), total


def entry_gaps(families: list[list[Path]], s: TensorProductSpec) -> list[tuple[int, int, int]]:
    """Entries of x and y that are no channels of any path; they are zero before uniform operands add to them."""
    return [
        (array, *gap)
        for array, slices in ((X, s.slices_in1), (Y, s.slices_in2))
        for gap in unreached(families, slices, array)
    ]


def unreached(families: list[list[Path]], slices: list[slice], array: int) -> list[tuple[int, int]]:
    paths = [path for family in families for path in family]
    views = [view for path in paths for view in (path.first, path.second, path.out) if isinstance(view, View)]
    covered = {view.offset for view in views if view.array == array and view.mul}
    return [(w.start, w.stop - w.start) for w in slices if w.stop > w.start and w.start not in covered]
