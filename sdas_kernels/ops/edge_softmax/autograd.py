"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward.

Operands are query, key, sink, harmonics, radial, envelope; `index` holds the graph's index tensors.
"""

from __future__ import annotations

from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect

_OP = "edge_softmax"


@torch.library.custom_op("sdas_kernels::edge_softmax", mutates_args=())
def edge_softmax(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> torch.Tensor:
    """`[E, K]`."""
    return kernels(_OP, query).forward(query, key, sink, harmonics, radial, envelope, index)


@torch.library.custom_op("sdas_kernels::edge_softmax_backward", mutates_args=())
def edge_softmax_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by the six operands."""
    backward = kernels(_OP, query).backward
    return backward(grad.contiguous(), query, key, sink, harmonics, radial, envelope, index)


@torch.library.custom_op("sdas_kernels::edge_softmax_double_backward", mutates_args=())
def edge_softmax_double_backward(
    grad_query: torch.Tensor,
    grad_key: torch.Tensor,
    grad_sink: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_envelope: torch.Tensor,
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the backward by grad and the six operands."""
    tangents = (grad_query, grad_key, grad_sink, grad_harmonics, grad_radial, grad_envelope)
    double_backward = kernels(_OP, query).double_backward
    return double_backward(
        *(t.contiguous() for t in tangents),
        grad.contiguous(), query, key, sink, harmonics, radial, envelope, index,
    )  # fmt: skip


@edge_softmax.register_fake
def _(query: torch.Tensor, key: torch.Tensor, sink: torch.Tensor, *rest: Any) -> torch.Tensor:
    return query.new_empty(rest[2].shape[0], query.shape[1])


@edge_softmax_backward.register_fake
def _(grad: torch.Tensor, *operands_and_index: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in operands_and_index[:6])


@edge_softmax_double_backward.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in arguments[6:13])


connect(_OP)
