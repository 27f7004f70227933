"""Checks of operator arguments: errors that name the argument, what was given, and what is wanted."""

from __future__ import annotations

import torch

from sdas_kernels import autocast
from sdas_kernels.arguments import FLOATING, dense_tensor
from sdas_kernels.graph import EdgeIndex


def check_floating(op: str, **tensors: torch.Tensor) -> None:
    """All are dense floating-point tensors of one dtype on one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        dense_tensor(op, name, tensor)
        if tensor.dtype not in FLOATING:
            raise TypeError(f"{op}: {name} must have a floating dtype, got {tensor.dtype}")
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} is {tensor.dtype} but {first_name} is {first.dtype}: convert one of them")
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} is on {tensor.device} but {first_name} is on {first.device}")


def check_shapes(op: str, sizes: dict[str, int], **shaped: tuple[torch.Tensor, tuple[str, ...]]) -> None:
    """Every tensor has the shape named for it, e.g. `value=(value, ("N", "M1", "C"))`.

    `sizes` holds the sizes known beforehand and is filled with those that the first tensor to name them fixes.
    """
    for name, (tensor, axes) in shaped.items():
        shape = tensor.shape
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} must be [{', '.join(axes)}], got {list(shape)}")
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{op}: {name} must be [{', '.join(axes)}] with {axis} = {sizes[axis]}, got {list(shape)}"
                )


def check_features(owner: str, x: torch.Tensor, rows: int, channels: int, like: torch.Tensor) -> None:
    """Features `[N, rows, channels]` that go with the weights `like`."""
    check_like(owner, x, like)
    if x.ndim != 3 or x.shape[1:] != (rows, channels):
        raise ValueError(f"{owner}: x must be [N, {rows}, {channels}], got {list(x.shape)}")


def check_like(owner: str, x: torch.Tensor, like: torch.Tensor) -> None:
    """A dense tensor of the dtype and on the device of weights; under autocast, which chooses it, of any dtype."""
    if isinstance(x, torch.Tensor) and x.dtype == like.dtype and x.device == like.device and x.layout == torch.strided:
        return
    check_floating(owner, x=x)
    if x.device != like.device or not autocast.is_on():
        raise ValueError(
            f"{owner}: x must be {like.dtype} on {like.device} as the weights are, got {x.dtype} on {x.device}"
        )


def check_graph(op: str, edges: EdgeIndex, like: torch.Tensor) -> None:
    """The graph lies on the tensors' device."""
    if not isinstance(edges, EdgeIndex):
        raise TypeError(f"{op}: graph must be a NeighborGraph or an EdgeIndex, got {type(edges).__name__}")
    if edges.receivers.device != like.device:
        raise ValueError(f"{op}: graph is on {edges.receivers.device} but the tensors are on {like.device}")
