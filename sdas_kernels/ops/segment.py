"""Sums over the edges of each node, in an order that never changes.

`index` is `EdgeIndex.tensors()`: receivers, senders, row_ptr, sender_order, sender_ptr. On the CPU an index_add goes
through the edges one after the other; elsewhere it would be atomic, so sorted segments are summed instead.
"""

from __future__ import annotations

import torch


def of_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Each edge's receiver row: `[N, ...]` -> `[E, ...]`."""
    return values.index_select(0, index[0])


def of_senders(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Each edge's sender row: `[N, ...]` -> `[E, ...]`."""
    return values.index_select(0, index[1])


def sum_to_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, ...]` -> `[N, ...]`."""
    if values.device.type == "cpu":
        return values.new_zeros(index[2].shape[0] - 1, *values.shape[1:]).index_add_(0, index[0], values)
    return _segment_sum(values, index[2])


def sum_to_senders(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, ...]` -> `[N, ...]`."""
    if values.device.type == "cpu":
        return values.new_zeros(index[4].shape[0] - 1, *values.shape[1:]).index_add_(0, index[1], values)
    return _segment_sum(values.index_select(0, index[3]), index[4])


def max_to_receivers(values: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """`[E, K]` -> `[N, K]`, -inf where a node receives nothing."""
    lowest = values.new_full((index[2].shape[0] - 1, values.shape[1]), -torch.inf)
    return lowest.scatter_reduce_(0, index[0][:, None].expand_as(values), values, "amax")


def _segment_sum(values: torch.Tensor, pointers: torch.Tensor) -> torch.Tensor:
    flat = torch.segment_reduce(values.flatten(1).contiguous(), "sum", offsets=pointers, axis=0, unsafe=True)
    return flat.unflatten(1, values.shape[1:]) if values.ndim > 1 else flat
