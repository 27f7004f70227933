"""Registration of the derivative ladder with PyTorch: value -> backward -> double backward.

Operands are query, key, sink, value, radial_gain, harmonics, radial, envelope; `index` holds the graph's index tensors.
`needs` says by which operands gradients are wanted: inference wants those by the geometry, and in a first layer, whose
features do not depend on the geometry, no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels.dispatch import kernels
from sdas_kernels.ops.ladder import connect
from sdas_kernels.ops.needs import like
from sdas_kernels.paths import Paths

_OP = "neighbor_attention"
Tensor = torch.Tensor


@torch.library.custom_op("sdas_kernels::neighbor_attention", mutates_args=())
def neighbor_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    value: torch.Tensor,
    radial_gain: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> torch.Tensor:
    """`[N, rows, C]`."""
    forward = kernels(_OP, value).forward
    return forward(query, key, sink, value, radial_gain, harmonics, radial, envelope, index, lmax_out, even_only)


@torch.library.custom_op("sdas_kernels::neighbor_attention_backward", mutates_args=())
def neighbor_attention_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    value: torch.Tensor,
    radial_gain: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by the eight operands; one that `needs` does not ask for has no elements."""
    operands = (query, key, sink, value, radial_gain, harmonics, radial, envelope)
    found = kernels(_OP, value).backward(grad.contiguous(), *operands, index, lmax_out, even_only, needs)
    by = [gradient if need else value.new_empty(0) for gradient, need in zip(found, needs, strict=True)]
    return by[0], by[1], by[2], by[3], by[4], by[5], by[6], by[7]


@torch.library.custom_op("sdas_kernels::neighbor_attention_double_backward", mutates_args=())
def neighbor_attention_double_backward(
    grad_query: torch.Tensor | None,
    grad_key: torch.Tensor | None,
    grad_sink: torch.Tensor | None,
    grad_value: torch.Tensor | None,
    grad_radial_gain: torch.Tensor | None,
    grad_harmonics: torch.Tensor | None,
    grad_radial: torch.Tensor | None,
    grad_envelope: torch.Tensor | None,
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    value: torch.Tensor,
    radial_gain: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the backward by grad and the eight operands; None stands for a tangent of zeros."""
    tangents = (
        grad_query, grad_key, grad_sink, grad_value, grad_radial_gain, grad_harmonics, grad_radial, grad_envelope
    )  # fmt: skip
    operands = (query, key, sink, value, radial_gain, harmonics, radial, envelope)
    steps = (
        torch.zeros_like(o) if step is None else step.contiguous() for step, o in zip(tangents, operands, strict=True)
    )
    double_backward = kernels(_OP, value).double_backward
    return double_backward(*steps, grad.contiguous(), *operands, index, lmax_out, even_only)


@neighbor_attention.register_fake
def _(query: Any, key: Any, sink: Any, value: torch.Tensor, radial_gain: torch.Tensor, *rest: Any) -> torch.Tensor:
    lmax_out, even_only = rest[4:]
    paths = Paths(math.isqrt(int(value.shape[1])) - 1, int(radial_gain.shape[1]) - 1, lmax_out, even_only)
    return value.new_empty(value.shape[0], paths.rows, value.shape[2])


@neighbor_attention_backward.register_fake
def _(grad: torch.Tensor, *operands: Any) -> tuple[torch.Tensor, ...]:
    return tuple(like(operands[:8], operands[-1]))


@neighbor_attention_double_backward.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in arguments[8:17])


connect(_OP)
