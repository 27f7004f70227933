"""FLOPs of the compiled kernels, from the shapes of the operands; the exponent of the envelope counts as 6."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_TERMS = 8  # of each Taylor polynomial: a product and a sum with constant coefficients, and the product by y
_START = 3 * _TERMS + 4
_ENVELOPE = 2 * 5 + 6


def forward(lengths: Tensor, n: int, *_: Any) -> int:
    """Two polynomials, the envelope, and per function the recurrence, its sign, and the product with the envelope."""
    return lengths.shape[0] * (2 * _START + _ENVELOPE + n * (3 + 1 + 1 + 1))


def backward(grad: Tensor, *_: Any) -> int:
    """The same with first derivatives, and two sums over the functions."""
    edges, n = grad.shape
    return edges * (3 * _START + _ENVELOPE + 12 + n * (8 + 3 + 4) + 4)


def double_backward(grad_grad: Tensor, grad: Tensor, *_: Any) -> int:
    """The same with second derivatives, three sums over the functions, and the cotangent of each."""
    edges, n = grad.shape
    return edges * (4 * _START + _ENVELOPE + 24 + n * (15 + 4 + 6 + 4) + 9)
