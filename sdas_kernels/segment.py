"""Rows of nodes given to edges, and sums over the edges of each node, in an order that never changes.

`gather` and `segment_sum` are each the other's derivative, so forces and gradients by weights repeat bit for bit.
PyTorch's derivative of an index_select is an index_add. On the CPU that goes through the rows one after the other;
elsewhere it adds atomically, in any order, so there the operators of this module run, which sum sorted segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from sdas_kernels.flops import register_flops
from sdas_kernels.transforms import Gradients, Rule, batch, differentiate, keep, one_by_one

IN_ORDER = {"cpu"}  # devices whose index_add goes through the rows one after the other


class Segments(NamedTuple):
    """Which segment each row belongs to. Index tensors are int64.

    members [R]: the segment of each row; ascending: whether they are sorted. order [R]: the rows sorted by segment;
    pointers [S+1]: the first place of each segment among those. Where one is None, a sum finds it.
    """

    members: torch.Tensor
    ascending: bool = True
    order: torch.Tensor | None = None
    pointers: torch.Tensor | None = None


def receivers(index: list[torch.Tensor]) -> Segments:
    """The edges of each receiver; `index` is `EdgeIndex.tensors()`."""
    return Segments(index[0], pointers=index[2])


def senders(index: list[torch.Tensor]) -> Segments:
    """The edges of each sender."""
    return Segments(index[1], False, *index[3:])


def gather(values: torch.Tensor, segments: Segments, dim: int = 0) -> torch.Tensor:
    """Each row's segment: `[S, ...]` -> `[R, ...]`, or the same along another dimension. Differentiable."""
    if values.device.type in IN_ORDER:
        return values.index_select(dim, segments.members)
    return _gather(values.transpose(0, dim), *segments).transpose(0, dim)


def segment_sum(values: torch.Tensor, segments: Segments, count: int) -> torch.Tensor:
    """Sum of the rows of each of `count` segments: `[R, ...]` -> `[S, ...]`. Differentiable."""
    if values.device.type in IN_ORDER:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, segments.members, values)
    return _segment_sum(values, *segments, count)


def of_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Each edge's receiver row: `[N, ...]` -> `[E, ...]`."""
    return values.index_select(0, index[0])


def of_senders(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Each edge's sender row: `[N, ...]` -> `[E, ...]`."""
    return values.index_select(0, index[1])


def sum_to_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, ...]` -> `[N, ...]`."""
    return segment_sum(values, receivers(index), index[2].shape[0] - 1)


def sum_to_senders(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, ...]` -> `[N, ...]`."""
    return segment_sum(values, senders(index), index[4].shape[0] - 1)


def max_to_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, K]` -> `[N, K]`, -inf where a node receives nothing."""
    lowest = values.new_full((index[2].shape[0] - 1, values.shape[1]), -torch.inf)
    return lowest.scatter_reduce_(0, index[0][:, None].expand_as(values), values, "amax")


@torch.library.custom_op("sdas_kernels::gather", mutates_args=())
def _gather(
    values: torch.Tensor,
    members: torch.Tensor,
    ascending: bool,
    order: torch.Tensor | None,
    pointers: torch.Tensor | None,
) -> torch.Tensor:
    return values.index_select(0, members)


@torch.library.custom_op("sdas_kernels::segment_sum", mutates_args=())
def _segment_sum(
    values: torch.Tensor,
    members: torch.Tensor,
    ascending: bool,
    order: torch.Tensor | None,
    pointers: torch.Tensor | None,
    count: int,
) -> torch.Tensor:
    if order is None and not ascending:
        order = members.argsort(stable=True)
    if pointers is None:
        found = members if order is None else members.index_select(0, order)
        pointers = torch.searchsorted(found, torch.arange(count + 1, device=members.device))
    rows = values if order is None else values.index_select(0, order)
    return torch.segment_reduce(rows.contiguous(), "sum", offsets=pointers, axis=0, unsafe=True)


@_gather.register_fake
def _(values: torch.Tensor, members: torch.Tensor, *_: Any) -> torch.Tensor:
    return values.new_empty(members.shape[0], *values.shape[1:])


@_segment_sum.register_fake
def _(values: torch.Tensor, members: torch.Tensor, *rest: Any) -> torch.Tensor:
    return values.new_empty(rest[-1], *values.shape[1:])


class _Gather(Rule):
    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        values, members, ctx.ascending, *places = arguments
        ctx.count = values.shape[0]
        keep(ctx, [members, *places])

    def backward(self, ctx: Any, *cotangents: torch.Tensor | None) -> Gradients:
        members, *places = ctx.saved_tensors
        return [_segment_sum(cotangents[0], members, ctx.ascending, *places, ctx.count)]

    def jvp(self, ctx: Any, *tangents: torch.Tensor | None) -> Gradients:
        members, *places = ctx.saved_tensors
        return [_gather(tangents[0], members, ctx.ascending, *places)]


class _SegmentSum(Rule):
    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        _, members, ctx.ascending, *places, ctx.count = arguments
        keep(ctx, [members, *places])

    def backward(self, ctx: Any, *cotangents: torch.Tensor | None) -> Gradients:
        members, *places = ctx.saved_tensors
        return [_gather(cotangents[0], members, ctx.ascending, *places)]

    def jvp(self, ctx: Any, *tangents: torch.Tensor | None) -> Gradients:
        members, *places = ctx.saved_tensors
        return [_segment_sum(tangents[0], members, ctx.ascending, *places, ctx.count)]


def _map(op: Any, size: int, dims: Sequence[Any], arguments: Sequence[Any]) -> tuple[Any, Any]:
    """With the mapped axis behind the others, or one by one where the segments are mapped."""
    if any(dim is not None for dim in dims[1:]):
        return one_by_one(op, size, dims, arguments)
    return op(arguments[0].movedim(dims[0], -1), *arguments[1:]), -1


_ops = torch.ops.sdas_kernels
for _op, _rule in ((_ops.gather.default, _Gather()), (_ops.segment_sum.default, _SegmentSum())):
    differentiate(_op, _rule)
    batch(_op, _map)
register_flops("sdas_kernels::gather", lambda *_: 0)
register_flops("sdas_kernels::segment_sum", lambda values, *_: values.numel())
