"""Neighbor attention in plain PyTorch: the truth for values, gradients and second derivatives."""

from __future__ import annotations

from functools import partial

import torch

from sdas_kernels.ops.edge_softmax import reference as softmax
from sdas_kernels.ops.neighbor_attention import composition
from sdas_kernels.ops.neighbor_tensor_product import reference as product

forward = partial(composition.forward, softmax, product)
backward = partial(composition.backward, softmax, product)
double_backward = partial(composition.double_backward, softmax, product)


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
    """The operator's formula, differentiable by PyTorch itself. Returns `[N, rows, C]`."""
    alpha = softmax.edge_softmax(query, key, sink, harmonics, radial, envelope, index)
    return product.neighbor_tensor_product(alpha, radial, radial_gain, value, harmonics, index, lmax_out, even_only)
