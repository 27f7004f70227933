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
from sdas_kernels.ops.tensor_product.tables_dense import DenseTables, dense_tables


def forward(x: Tensor, y: Tensor, weight: Tensor, spec: str) -> int:
    """Kernel paths, and a matrix product for each entry of the output that has any."""
    p = parts(spec, x.dtype, COMPILED)
    if weight.ndim == 1:
        each = _channel(p, "forward") + _blocks_forward(p)
    else:
        each = _channel(p, "forward") + _products(p, "forward") + _matrix(p) + _added(p)
    return len(x) * each + _rest(p, _forward_of, len(x), weight.ndim)


def backward(grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, spec: str, needs: Sequence[bool]) -> int:
    """Kernel paths; for dense ones q = g Wᵀ, and P again with Pᵀ g."""
    p, batch = parts(spec, x.dtype, COMPILED), len(x)
    each = _channel(p, "backward")
    if weight.ndim == 1:
        each += _blocks_backward(p, needs)
    else:
        each += _products(p, "backward") + _matrix(p) if any(needs[:2]) else 0
        each += _products(p, "forward") + _matrix(p) if needs[2] else 0
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
    """Kernel paths; for dense paths with a weight per sample the three rungs of P and five matrix products."""
    p, batch = parts(spec, x.dtype, COMPILED), len(x)
    each = _channel(p, "double_backward")
    if weight.ndim == 1:
        each += _blocks_double_backward(p, needs)
    else:
        each += _products(p, "double_backward") + _matrix(p)
        each += 2 * _matrix(p) + _products(p, "forward") + 2 * _added(p) if needs[0] else 0
        each += _matrix(p) + _products(p, "backward") if any(needs[1:3]) else 0
        each += _matrix(p) if needs[3] else 0
    given = tuple(t is not None for t in (grad_x, grad_y, grad_weight))
    rest = _rest(p, _double_backward_of, batch, weight.ndim, given, tuple(needs))
    return batch * each + rest + 2 * _sums(p, x, y, needs[1:3])


def _channel(p: Parts, order: str) -> int:
    """Per sample, of the channelwise paths."""
    return p.channel.flops[order] if p.channel else 0


def _products(p: Parts, order: str) -> int:
    """Per sample, of the products that matrix products of PyTorch take."""
    return p.dense.flops[order] if p.dense else 0


def _blocks_forward(p: Parts) -> int:
    """Per sample: P, the matrices, Q (`tables_dense.py`)."""
    if not p.dense:
        return 0
    t = dense_tables(p.text, p.dtype)
    return t.inner.flops["forward"] + _mixed(t) + t.outer.flops["forward"] + (0 if p.dense_alone else _added(p))


def _blocks_backward(p: Parts, needs: Sequence[bool]) -> int:
    if not p.dense:
        return 0
    t, (by_x, by_y, by_weight) = dense_tables(p.text, p.dtype), needs
    each = t.outer.flops["backward"]
    each += t.inner.flops["forward"] if by_y or by_weight else 0
    each += _mixed(t, coupled=True) if by_y else 0
    each += t.inner.flops["backward"] + _mixed(t) if by_x or by_y else 0
    return each + (_mixed(t) if by_weight else 0)


def _blocks_double_backward(p: Parts, needs: Sequence[bool]) -> int:
    if not p.dense:
        return 0
    t, (by_grad, by_x, by_y, by_weight) = dense_tables(p.text, p.dtype), needs
    each = sum(t.inner.flops[order] for order in ("forward", "double_backward"))
    each += sum(t.outer.flops[order] for order in ("backward", "double_backward"))
    each += _mixed(t, coupled=True) if by_grad else 0
    each += 2 * _mixed(t) if by_grad or by_y else 0
    each += _added(p) if by_grad and not p.dense_alone else 0
    if by_x or by_y:
        each += t.inner.flops["backward"] + 2 * _mixed(t) + _mixed(t, coupled=True)
    return each + (_mixed(t) + _mixed(t, coupled=True) if by_weight else 0)


def _mixed(t: DenseTables, coupled: bool = False) -> int:
    """Per sample, of one product with every matrix, or with those whose results Q multiplies with y."""
    return sum(2 * m.rows * m.depth * m.columns for m in t.matrices if m.coupled or not coupled)


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
