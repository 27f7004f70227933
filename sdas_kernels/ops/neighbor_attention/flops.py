"""FLOPs of the fused kernels: those of the two halves, but for what fusing them saves and repeats."""

from __future__ import annotations

from typing import Any

from sdas_kernels.ops.edge_softmax import flops as softmax
from sdas_kernels.ops.neighbor_tensor_product import flops as product


def forward(*arguments: Any) -> int:
    """One of each."""
    logits, coupled = _operands(arguments)
    return softmax.forward(*logits) + product.forward(*coupled)


def backward(grad: Any, *arguments: Any) -> int:
    """Both backward passes, but what is not needed; the softmax's forward, which is part of its backward, gives the
    weights too.
    """
    *arguments, needs = arguments  # type: ignore[assignment]
    logits, coupled = _operands(tuple(arguments))
    s = _sizes(coupled)
    total = softmax.backward(None, *logits) + product.backward(grad, *coupled)  # type: ignore[arg-type]
    total += s.pairs + _to_senders(s) + product.weights(s)
    key_channels, places = logits[1].shape[2], s.harmonics + s.radial
    if not needs[0]:
        total -= 2 * s.pairs * (key_channels + places)
    if not (needs[1] or needs[3]):
        total -= s.edges * s.channels * (s.harmonics + 2 * s.tile) + product.couple(s) + product.weights(s)
        total -= 2 * s.pairs * key_channels
    if not needs[4]:
        total -= 2 * s.numbers * s.radial
    return total


def double_backward(*arguments: Any) -> int:
    """Both double backward passes, and the softmax's backward of what reaches α itself."""
    logits, coupled = _operands(arguments[9:])
    sizes = _sizes(coupled)
    halves = softmax.double_backward(*[None] * 7, *logits) + product.double_backward(*[None] * 6, *coupled)
    mean, by_sink, rest = 2, 1, 3
    through_alpha = sizes.pairs * (1 + mean + by_sink + rest)
    return halves + through_alpha + _to_senders(sizes) + product.weights(sizes) + product.weight_steps(sizes)


def _operands(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Those of the softmax, and those of the product with the key in the place of α, whose shape no count needs."""
    query, key, sink, value, radial_gain, harmonics, radial, envelope, index, lmax_out, even_only = arguments
    logits = (query, key, sink, harmonics, radial, envelope, index)
    return logits, (key, radial, radial_gain, value, harmonics, index, lmax_out, even_only)


def _sizes(coupled: tuple[Any, ...]) -> product.Sizes:
    _, radial, radial_gain, value, _, _, lmax_out, even_only = coupled
    return product.Sizes.of(radial, radial_gain, value, lmax_out, even_only)


def _to_senders(s: product.Sizes) -> int:
    """What it costs more to uncouple once per receiver, and less that the edges of a sender then need not do so."""
    return product.couple(s) + s.edges * s.channels * (2 * s.tile - 3 * s.couplings)
