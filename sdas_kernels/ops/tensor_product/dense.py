"""Paths whose weight mixes channels, as kernels and matrix products: z = W · P(x, y), P the products of x and y.

P is a tensor product without weight, run by the compiled kernels, which write it as arrays `[B, 2 l3 + 1, products]`,
one for each entry of the output, ready for one matrix product each. With q = g Wᵀ the gradient by P and ' for tangents,

    ∂x, ∂y = backward of P at q        ∂W = P(x, y)ᵀ g
    second derivatives by g: (P(x', y) + P(x, y')) W + P(x, y) W'      by W: (P(x', y) + P(x, y'))ᵀ g
                       by x and y: double backward of P at q, and backward of P at q' = g W'ᵀ
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sdas_kernels.ops.tensor_product.kernel import run
from sdas_kernels.ops.tensor_product.tables import DenseEntry, Parts


def products(x: Tensor, y: Tensor, p: Parts) -> Tensor:
    """P(x, y): the arrays of all entries, one after the other."""
    assert p.dense is not None
    found = x.new_empty(len(x) * p.products)
    run("forward", p.dense, x=x, y=y, weight=x.new_empty(0), out=found)
    return found


def add_outputs(z: Tensor, product: Tensor, weight: Tensor, p: Parts) -> None:
    """Add P · W to z `[B, dim_out]`, or write it where nothing else does."""
    for entry, array in _arrays(product, len(z), p):
        result = _times(array, weight, entry).transpose(1, 2)
        where = p.out_slices[entry.i_out]
        target = z[:, where].unflatten(-1, result.shape[1:])
        if entry.i_out in p.untouched:
            target.copy_(result)
        else:
            target.add_(result)


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, p: Parts, needs: Sequence[bool], by_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by x and y; that by the weight is written into the columns of its paths."""
    assert p.dense is not None
    gradients = _output_gradients(grad, p)
    if by_weight is not None:
        _write_by_weight(by_weight, products(x, y, p), gradients, p)
    if not any(needs):
        return None, None
    return _by_inputs(_by_products(gradients, weight, p), x, y, p, needs)


def double_backward(
    steps: Sequence[Tensor],
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    p: Parts,
    needs: Sequence[bool],
    by_grad: Tensor | None,
    by_weight: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by x and y; those by grad are added to `by_grad`, those by the weight are written."""
    assert p.dense is not None
    gradients = _output_gradients(grad, p)
    x_step, y_step, weight_step = steps
    by_x, by_y = (torch.empty_like(t) if need else None for t, need in zip((x, y), needs[1:3], strict=True))
    product_step = x.new_empty(len(x) * p.products)
    none = x.new_empty(0)
    run(
        "double_backward",
        p.dense,
        x=x,
        y=y,
        weight=none,
        grad=_by_products(gradients, weight, p),
        x_step=x_step,
        y_step=y_step,
        weight_step=none,
        out=product_step,
        by_x=by_x,
        by_y=by_y,
    )
    if by_grad is not None:
        add_outputs(by_grad, product_step, weight, p)
        add_outputs(by_grad, products(x, y, p), weight_step, p.touched())
    if by_weight is not None:
        _write_by_weight(by_weight, product_step, gradients, p)
    if any(needs[1:3]):
        more = _by_inputs(_by_products(gradients, weight_step, p), x, y, p, needs[1:3])
        for total, part in zip((by_x, by_y), more, strict=True):
            if total is not None and part is not None:
                total.add_(part)
    return by_x, by_y


def _by_inputs(
    by_products: Tensor, x: Tensor, y: Tensor, p: Parts, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    assert p.dense is not None
    by_x, by_y = (torch.empty_like(t) if need else None for t, need in zip((x, y), needs, strict=True))
    run("backward", p.dense, x=x, y=y, weight=x.new_empty(0), grad=by_products, by_x=by_x, by_y=by_y)
    return by_x, by_y


def _arrays(product: Tensor, batch: int, p: Parts) -> Iterator[tuple[DenseEntry, Tensor]]:
    """Each entry with its array `[B, 2 l3 + 1, width]`."""
    for entry in p.entries:
        size = entry.dim * entry.width
        array = product[batch * entry.offset : batch * (entry.offset + size)]
        yield entry, array.view(batch, entry.dim, entry.width)


def _output_gradients(grad: Tensor, p: Parts) -> list[Tensor]:
    """Of each entry, `[B, 2 l3 + 1, m3]`."""
    parts = [grad[:, p.out_slices[entry.i_out]].unflatten(-1, (entry.mul, entry.dim)) for entry in p.entries]
    return [part.transpose(1, 2).contiguous() for part in parts]


def _shared_weight(weight: Tensor, entry: DenseEntry) -> Tensor:
    """`[width, m3]`."""
    pieces = [weight[where].view(shape) for _, where, shape in entry.paths]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _times(array: Tensor, weight: Tensor, entry: DenseEntry) -> Tensor:
    """P · W of one entry, `[B, 2 l3 + 1, m3]`."""
    batch = len(array)
    if weight.ndim == 1:
        return torch.mm(array.flatten(0, 1), _shared_weight(weight, entry)).view(batch, entry.dim, entry.mul)
    result = array.new_zeros(batch, entry.dim, entry.mul)
    for columns, where, shape in entry.paths:
        result.baddbmm_(array[:, :, columns], weight[:, where].unflatten(-1, shape))
    return result


def _by_products(gradients: list[Tensor], weight: Tensor, p: Parts) -> Tensor:
    """q = g Wᵀ, laid out as the products."""
    batch = len(gradients[0])
    found = gradients[0].new_empty(batch * p.products)
    for (entry, array), g in zip(_arrays(found, batch, p), gradients, strict=True):
        if weight.ndim == 1:
            torch.mm(g.flatten(0, 1), _shared_weight(weight, entry).T, out=array.flatten(0, 1))
            continue
        for columns, where, shape in entry.paths:
            array[:, :, columns] = torch.bmm(g, weight[:, where].unflatten(-1, shape).transpose(1, 2))
    return found


def _write_by_weight(by_weight: Tensor, product: Tensor, gradients: list[Tensor], p: Parts) -> None:
    """Pᵀ g into the columns of every path."""
    for (entry, array), g in zip(_arrays(product, len(gradients[0]), p), gradients, strict=True):
        if by_weight.ndim == 1:
            found = torch.mm(array.flatten(0, 1).T, g.flatten(0, 1))
            for columns, where, _ in entry.paths:
                by_weight[where] = found[columns].flatten()
            continue
        for columns, where, _ in entry.paths:
            by_weight[:, where] = torch.bmm(array[:, :, columns].transpose(1, 2), g).flatten(1)
