"""FLOPs of the compiled backend, from the shapes of the operands.

Channelwise paths count what `tables.py` says of them; matrix products two per multiply-add; what the reference does
for the compiled backend counts what the counter sees there, once for each specification and which operands move. What
adds up the gradients by a shared weight of blocks of samples is not counted: it is less than a thousandth, and the
count would not be affine in the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sdas_kernels.flops import FlopCounter
from sdas_kernels.ops.tensor_product import reference
from sdas_kernels.ops.tensor_product.kernel import COMPILED
from sdas_kernels.ops.tensor_product.spec import TensorProductSpec
from sdas_kernels.ops.tensor_product.tables import Parts, parts


def forward(x: Tensor, y: Tensor, weight: Tensor, spec: str) -> int:
    """Kernel paths, and a matrix product for each entry of the output that has any."""
    p = parts(spec, x.dtype, COMPILED)
    channel, products = _kernels(p, "forward")
    each = channel + products + _matrix(p) + _added(p)
    return len(x) * each + _rest(p, _forward_of, len(x), weight.ndim)


def backward(grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, spec: str, needs: Sequence[bool]) -> int:
    """Kernel paths; q = g Wᵀ, and P again with Pᵀ g."""
    p, batch = parts(spec, x.dtype, COMPILED), len(x)
    channel, products = _kernels(p, "backward")
    each = channel
    if p.dense and any(needs[:2]):
        each += products + _matrix(p)
    if p.dense and needs[2]:
        each += _kernels(p, "forward")[1] + _matrix(p)
    return batch * each + _rest(p, _backward_of, batch, weight.ndim, tuple(needs)) + _sums(p, x, y, needs)


def double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    spec: str,
    needs: Sequence[bool],
) -> int:
    """Kernel paths; for dense paths a double backward, a forward and a backward of P, and five matrix products."""
    p, batch = parts(spec, x.dtype, COMPILED), len(x)
    channel, products = _kernels(p, "double_backward")
    each = channel
    if p.dense:
        by_grad = 2 * _matrix(p) + _kernels(p, "forward")[1] + 2 * _added(p) if needs[0] else 0
        by_inputs = _matrix(p) + _kernels(p, "backward")[1] if any(needs[1:3]) else 0
        each += products + _matrix(p) + by_grad + by_inputs + (_matrix(p) if needs[3] else 0)
    given = tuple(t is not None for t in (grad_x, grad_y, grad_weight))
    rest = _rest(p, _double_backward_of, batch, weight.ndim, given, tuple(needs))
    return batch * each + rest + 2 * _sums(p, x, y, needs[1:3])


def _kernels(p: Parts, order: str) -> tuple[int, int]:
    """Per sample, of the channelwise paths and of the products."""
    return p.channel.flops[order] if p.channel else 0, p.dense.flops[order] if p.dense else 0


def _matrix(p: Parts) -> int:
    """Per sample, of one product of every entry's array with its weight."""
    return sum(2 * entry.dim * entry.width * entry.mul for entry in p.entries)


def _added(p: Parts) -> int:
    """Per sample, numbers of the output that are added to others."""
    return sum(entry.dim * entry.mul for entry in p.entries if entry.i_out not in p.untouched)


def _sums(p: Parts, x: Tensor, y: Tensor, needs: Sequence[bool]) -> int:
    """What adds up the parts' gradients by x and y."""
    several = sum(part is not None for part in (p.channel, p.dense, p.rest)) - 1
    return max(several, 0) * sum(t.numel() for t, need in zip((x, y), needs, strict=False) if need)


def _rest(p: Parts, count: Callable[..., int], batch: int, *key: Any) -> int:
    """Of the paths that the reference does: affine in the batch above one, so counted at two sizes."""
    if p.rest is None:
        return 0
    two, three = count(p.rest.text, 2, *key), count(p.rest.text, 3, *key)
    return max(two + (three - two) * (batch - 2), 0)


def _operands(spec: str, batch: int, weight_ndim: int) -> list[Tensor]:
    s = TensorProductSpec.parse(spec)
    weight = torch.zeros(s.weight_numel) if weight_ndim == 1 else torch.zeros(batch, s.weight_numel)
    return [torch.zeros(batch, s.dims[2]), torch.zeros(batch, s.dims[0]), torch.zeros(batch, s.dims[1]), weight]


def _counted(function: Callable[..., Any], *arguments: Any) -> int:
    function(*arguments)  # makes what is kept between calls
    with FlopCounter() as counter:
        function(*arguments)
    return counter.total


@lru_cache(maxsize=1024)
def _forward_of(spec: str, batch: int, weight_ndim: int) -> int:
    return _counted(reference.forward, *_operands(spec, batch, weight_ndim)[1:], spec)


@lru_cache(maxsize=1024)
def _backward_of(spec: str, batch: int, weight_ndim: int, needs: tuple[bool, ...]) -> int:
    return _counted(reference.backward, *_operands(spec, batch, weight_ndim), spec, needs)


@lru_cache(maxsize=1024)
def _double_backward_of(
    spec: str, batch: int, weight_ndim: int, given: tuple[bool, ...], needs: tuple[bool, ...]
) -> int:
    operands = _operands(spec, batch, weight_ndim)
    steps = [t if wanted else None for t, wanted in zip(operands[1:], given, strict=True)]
    return _counted(reference.double_backward, *steps, *operands, spec, needs)
