"""FLOPs of the compiled convolution whose weights are hidden · basis: the convolution's, and two per multiply-add.

What adds up the results of blocks is not counted: it is less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sdas_kernels.ops.tensor_product_conv import flops as convolution
from sdas_kernels.ops.tensor_product_conv.tables import tables


def forward(x: Tensor, y: Tensor, hidden: Tensor, basis: Tensor, index: Any, spec: str) -> int:
    """Weights, convolution."""
    return _product(hidden, basis) + convolution.forward(x, y, _weight(hidden, basis), index, spec)


def backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: Any,
    spec: str,
    needs: Sequence[bool],
) -> int:
    """Weights for each contraction, convolution, and what takes its gradient by the weights to the factors."""
    asked = [*needs[:2], any(needs[2:])]
    inner = convolution.backward(grad, x, y, _weight(hidden, basis), index, spec, asked)
    made = needs[0] + any(needs[1:]) if tables(spec, x.dtype) else 1
    return inner + _product(hidden, basis) * (made + sum(needs[2:]))


def double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_hidden: Tensor | None,
    grad_basis: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: Any,
    spec: str,
    needs: Sequence[bool],
) -> int:
    """The same along the steps, and the first gradient by the weights where a factor has a step."""
    weight, factors = _weight(hidden, basis), sum(t is not None for t in (grad_hidden, grad_basis))
    asked = [*needs[:3], any(needs[3:])]
    step = weight if factors else None
    inner = convolution.double_backward(grad_x, grad_y, step, grad, x, y, weight, index, spec, asked)
    if factors and any(needs[3:]):
        inner += convolution.backward(grad, x, y, weight, index, spec, [False, False, True])
    made = needs[1] + (needs[0] or any(needs[2:])) if tables(spec, x.dtype) else 1
    crossed = (needs[3] and grad_basis is not None) + (needs[4] and grad_hidden is not None)
    return inner + _product(hidden, basis) * (made * (1 + factors) + sum(needs[3:]) + crossed)


def _weight(hidden: Tensor, basis: Tensor) -> Tensor:
    """Of its shape, without memory."""
    return hidden.new_empty(len(hidden), basis.shape[1], device="meta")


def _product(hidden: Tensor, basis: Tensor) -> int:
    return 2 * hidden.numel() * basis.shape[1]
