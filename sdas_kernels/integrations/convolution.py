"""MACE's interaction blocks: their gather, tensor product and sum over neighbors become one `tensor_product_conv`.

A block of MACE that has an attribute `conv_fusion` hands its whole convolution to
`conv_tp(node_feats, edge_attrs, tp_weights, edge_index)`. The operator wants edges sorted by receiver. What a block
returns does not depend on the order of its edges, so a hook sorts what enters the block, which is a few numbers for
each edge, and nothing outside notices.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from sdas_kernels.graph import EdgeIndex
from sdas_kernels.transforms import transformed

_PER_EDGE = ("edge_attrs", "edge_feats", "cutoff")
_OTHERS = ("self", "node_attrs", "node_feats", "edge_index", "lammps_natoms", "lammps_class", "first_layer")
_Result = TypeVar("_Result")


class _Remembered(Generic[_Result]):
    """A function of a tensor that keeps its last result, since the layers of a model share their edges.

    Nothing is kept under a transform, whose tensors end with it, nor of a tensor that was made in inference mode, which
    does not count how often it is written to.
    """

    def __init__(self, function: Callable[..., _Result]) -> None:
        self.function = function
        self.last: tuple[weakref.ref[torch.Tensor], tuple[int, ...], _Result] | None = None

    def __call__(self, tensor: torch.Tensor, *sizes: int) -> _Result:
        if tensor.is_inference() or transformed():
            return self.function(tensor, *sizes)
        state, last = (tensor._version, *sizes), self.last
        if last is not None and last[0]() is tensor and last[1] == state:
            return last[2]
        result = self.function(tensor, *sizes)
        self.last = weakref.ref(tensor), state, result
        return result


@_Remembered
def _by_receiver(edge_index: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The order that sorts edges `[2, E]` (senders, receivers) by receiver, None if they are, and the sorted edges."""
    if bool((edge_index[1].diff() >= 0).all()):
        return None, edge_index
    order = torch.argsort(edge_index[1], stable=True)
    return order, edge_index.index_select(1, order)


@_Remembered
def edges_of(edge_index: torch.Tensor, num_nodes: int) -> EdgeIndex:
    """The index of edges `[2, E]`, senders and receivers, sorted by receiver."""
    return EdgeIndex.from_pairs(edge_index[1], edge_index[0], num_nodes)


def can_fuse_convolution(block: nn.Module) -> bool:
    """Whether a module is such a block: it has a `conv_tp`, asks for `conv_fusion`, and takes nothing unknown."""
    forward: Any = inspect.getattr_static(type(block), "forward", None)
    code = getattr(forward, "__code__", None)
    if code is None or hasattr(block, "conv_fusion") or not isinstance(getattr(block, "conv_tp", None), nn.Module):
        return False
    parameters = set(inspect.signature(forward).parameters)
    return "conv_fusion" in code.co_consts and {"node_feats", "edge_index"} <= parameters <= {*_PER_EDGE, *_OTHERS}


def fuse_convolution(block: Any) -> None:
    """Make the block hand its convolution to `conv_tp`, and sort its edges before it runs."""
    block.conv_fusion = "sdas_kernels"
    block.register_forward_pre_hook(_sort_edges, with_kwargs=True)


def _sort_edges(
    block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = list(inspect.signature(type(block).forward).parameters)[1:]
    given = dict(zip(names, args, strict=False)) | kwargs
    order, given["edge_index"] = _by_receiver(given["edge_index"])
    if order is not None:
        for name in _PER_EDGE:
            if given.get(name) is not None:
                given[name] = given[name].index_select(0, order)
    return (), given
