"""The tensor product and its derivatives, composed of a backend's kernels, matrix products and the reference.

A specification is divided by `tables.py`, and what its parts give is added up:

    channel   uvu, uvv, uuu, uvuv: the kernels alone
    dense     uvw, uuw: the kernels make the products p of x and y, matrix products of PyTorch bring in the weight, or
              the backend's own where all samples share it
    rest      uvu<v, u<vw, and rare forms of the others: the reference

Results of `channel` are the same bits in every run; those of a matrix product of PyTorch are what it makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdas_kernels import memory
from sdas_kernels.ops.tensor_product import dense, reference
from sdas_kernels.ops.tensor_product.tables import Kernels, Parts, parts


def forward(kernels: Kernels, x: Tensor, y: Tensor, weight: Tensor, spec: str) -> Tensor:
    """`[B, dim1]`, `[B, dim2]`, `[numel]` or `[B, numel]` -> `[B, dim_out]`."""
    p = parts(spec, x.dtype, kernels)
    z = None
    if p.channel:
        z = memory.empty((len(x), p.dim_out), x)
        kernels.run("forward", p.channel, x=x, y=y, weight=weight, out=z)
    if p.rest:
        z = _plus(z, reference.forward(x, y, _columns(weight, p), p.rest.text))
    assert z is not None
    if p.dense:
        _dense(kernels, weight).forward(z, x, y, weight, p)
    return z


def backward(
    kernels: Kernels, grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, spec: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    p = parts(spec, x.dtype, kernels)
    by_weight = memory.empty_like(weight) if needs[2] else None
    by_x = by_y = None
    if p.channelwise:
        by_x, by_y = _like((x, y), needs)
        operands = {"x": x, "y": y, "weight": weight, "grad": grad}
        kernels.run("backward", p.channel, **operands, by_x=by_x, by_y=by_y, by_weight=by_weight)
    if p.dense:
        dense_x, dense_y = _dense(kernels, weight).backward(grad, x, y, weight, p, needs[:2], by_weight)
        by_x, by_y = _plus(by_x, dense_x), _plus(by_y, dense_y)
    if p.rest:
        rest_x, rest_y, by_columns = reference.backward(grad, x, y, _columns(weight, p), p.rest.text, needs)
        by_x, by_y = _plus(by_x, rest_x), _plus(by_y, rest_y)
        _put_columns(by_weight, by_columns, p)
    return _given(by_x, x, needs[0]), _given(by_y, y, needs[1]), _given(by_weight, weight, needs[2])


def double_backward(
    kernels: Kernels,
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight."""
    p = parts(spec, x.dtype, kernels)
    by_weight = memory.empty_like(weight) if needs[3] else None
    steps = [_or_zeros(t, like) for t, like in ((grad_x, x), (grad_y, y), (grad_weight, weight))]
    by_grad = by_x = by_y = None
    if p.channel and (p.channelwise or needs[0]):
        wanted = needs if p.channelwise else (needs[0], False, False, False)  # what else there is, others write
        by_grad, by_x, by_y = _like((grad, x, y), wanted)
        kernels.run(
            "double_backward",
            p.channel,
            x=x,
            y=y,
            weight=weight,
            grad=grad,
            x_step=steps[0],
            y_step=steps[1],
            weight_step=steps[2],
            out=by_grad,
            by_x=by_x,
            by_y=by_y,
            by_weight=by_weight if wanted[3] else None,
        )
    if p.rest:
        columns = None if grad_weight is None else _columns(grad_weight, p)
        first = grad_x, grad_y, columns
        *second, by_columns = reference.double_backward(*first, grad, x, y, _columns(weight, p), p.rest.text, needs)
        by_grad, by_x, by_y = (_plus(a, b) for a, b in zip((by_grad, by_x, by_y), second, strict=True))
        _put_columns(by_weight, by_columns, p)
    if p.dense:
        targets = by_grad if needs[0] else None, by_weight
        first_x, first_y = _dense(kernels, weight).double_backward(steps, grad, x, y, weight, p, needs, *targets)
        by_x, by_y = _plus(by_x, first_x), _plus(by_y, first_y)
    found = zip((by_grad, by_x, by_y, by_weight), (grad, x, y, weight), needs, strict=True)
    by_grad, by_x, by_y, by_weight = (_given(t, like, need) for t, like, need in found)
    return by_grad, by_x, by_y, by_weight


def _dense(kernels: Kernels, weight: Tensor) -> Any:
    """What does the dense paths."""
    return kernels.shared if kernels.shared is not None and weight.ndim == 1 else dense


def _like(operands: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    return [memory.empty_like(t) if need else None for t, need in zip(operands, needs, strict=False)]


def _or_zeros(tensor: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tensor is None else tensor


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None or not b.numel():
        return b if a is None else a
    return a.add_(b)


def _given(found: Tensor | None, like: Tensor, need: bool) -> Tensor:
    if not need:
        return like.new_empty(0)
    return torch.zeros_like(like) if found is None else found


def _columns(weight: Tensor, p: Parts) -> Tensor:
    """The weights of the paths that the reference does."""
    pieces = [weight[..., where] for where in p.rest_weight]
    return torch.cat(pieces, -1) if pieces else weight[..., :0]


def _put_columns(by_weight: Tensor | None, by_columns: Tensor, p: Parts) -> None:
    if by_weight is None:
        return
    start = 0
    for where in p.rest_weight:
        stop = start + where.stop - where.start
        by_weight[..., where] = by_columns[..., start:stop]
        start = stop
