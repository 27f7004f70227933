"""Neighbor attention as the composition of edge softmax and neighbor tensor product, by whichever backend of the two.

`softmax` and `product` are backend modules of `edge_softmax` and `neighbor_tensor_product`. What is not fused crosses
from one to the other as arrays of `[E, K]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch

ALL = (True,) * 8  # gradients that may be needed


def forward(
    softmax: ModuleType,
    product: ModuleType,
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
    alpha = softmax.forward(query, key, sink, harmonics, radial, envelope, index)
    return product.forward(alpha, radial, radial_gain, value, harmonics, index, lmax_out, even_only)


def backward(
    softmax: ModuleType,
    product: ModuleType,
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
    needs: Sequence[bool] = ALL,
) -> tuple[torch.Tensor, ...]:
    """Gradients by the eight operands, whichever are needed: only a fused kernel can leave some out."""
    logits = (query, key, sink, harmonics, radial, envelope, index)
    alpha = softmax.forward(*logits)
    by_alpha, by_radial, by_gain, by_value, by_harmonics = product.backward(
        grad, alpha, radial, radial_gain, value, harmonics, index, lmax_out, even_only
    )
    by_query, by_key, by_sink, more_harmonics, more_radial, by_envelope = softmax.backward(by_alpha, *logits)
    geometry = by_harmonics + more_harmonics, by_radial + more_radial, by_envelope
    return by_query, by_key, by_sink, by_value, by_gain, *geometry


def double_backward(
    softmax: ModuleType,
    product: ModuleType,
    grad_query: torch.Tensor,
    grad_key: torch.Tensor,
    grad_sink: torch.Tensor,
    grad_value: torch.Tensor,
    grad_radial_gain: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_envelope: torch.Tensor,
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
) -> tuple[torch.Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad and the eight operands.

    The weights move along the tangents by α̇, which enters the product's double backward as the tangent of its
    attention; what comes back to α̇ and to α goes through the double backward and the backward of the softmax.
    """
    logits = (query, key, sink, harmonics, radial, envelope, index)
    alpha = softmax.forward(*logits)
    couple = (alpha, radial, radial_gain, value, harmonics, index, lmax_out, even_only)
    by_alpha_step = product.backward(grad, *couple)[0]
    alpha_step, *through_step = softmax.double_backward(
        grad_query, grad_key, grad_sink, grad_harmonics, grad_radial, grad_envelope, by_alpha_step, *logits
    )
    by_grad, by_alpha, by_radial, by_gain, by_value, by_harmonics = product.double_backward(
        alpha_step, grad_radial, grad_radial_gain, grad_value, grad_harmonics, grad, *couple
    )
    through_alpha = softmax.backward(by_alpha, *logits)
    by_query, by_key, by_sink, more_harmonics, more_radial, by_envelope = (
        a + b for a, b in zip(through_step, through_alpha, strict=True)
    )
    geometry = by_harmonics + more_harmonics, by_radial + more_radial, by_envelope
    return by_grad, by_query, by_key, by_sink, by_value, by_gain, *geometry
