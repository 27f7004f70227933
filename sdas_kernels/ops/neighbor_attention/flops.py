"""FLOPs of neighbor attention: those of its two halves, as `composition.py` puts them together."""

from __future__ import annotations

from typing import Any

from sdas_kernels.ops.edge_softmax import flops as softmax
from sdas_kernels.ops.neighbor_tensor_product import flops as product


def forward(*arguments: Any) -> int:
    """One of each."""
    logits, coupled = _operands(arguments)
    return softmax.forward(*logits) + product.forward(*coupled)


def backward(grad: Any, *arguments: Any) -> int:
    """The weights again, and both backward passes."""
    logits, coupled = _operands(arguments)
    backward = softmax.backward(None, *logits) + product.backward(grad, *coupled)  # type: ignore[arg-type]
    return softmax.forward(*logits) + backward + _sums(arguments)


def double_backward(*arguments: Any) -> int:
    """The weights, the product's backward, and through both halves: double backward, and the softmax's backward."""
    logits, coupled = _operands(arguments[9:])
    first = softmax.forward(*logits) + product.backward(arguments[8], *coupled)
    through = softmax.double_backward(*[None] * 7, *logits) + product.double_backward(*[None] * 6, *coupled)
    summed = sum(t.numel() for t in (arguments[9], arguments[10], arguments[11], arguments[16]))
    return first + through + softmax.backward(None, *logits) + _sums(arguments[9:]) * 2 + summed  # type: ignore[arg-type]


def _operands(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Those of the softmax, and those of the product with the key in the place of α, whose shape no count needs."""
    query, key, sink, value, radial_gain, harmonics, radial, envelope, index, lmax_out, even_only = arguments
    logits = (query, key, sink, harmonics, radial, envelope, index)
    return logits, (key, radial, radial_gain, value, harmonics, index, lmax_out, even_only)


def _sums(arguments: tuple[Any, ...]) -> int:
    """Adding what both halves give to harmonics and radial functions."""
    return arguments[5].numel() + arguments[6].numel()
