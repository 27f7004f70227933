"""Paths whose weight mixes channels, as kernels and matrix products: z = W · P(x, y), P the products of x and y.

P is a tensor product without weight, run by a backend's kernels, which write it as arrays `[B, 2 l3 + 1, products]`,
one for each entry of the output, ready for one matrix product each. With q = g Wᵀ the gradient by P and ' for tangents,

    ∂x, ∂y = backward of P at q        ∂W = P(x, y)ᵀ g
    second derivatives by g: (P(x', y) + P(x, y')) W + P(x, y) W'      by W: (P(x', y) + P(x, y'))ᵀ g
                       by x and y: double backward of P at q, and backward of P at q' = g W'ᵀ

Samples are worked on in chunks whose products stay in the caches, or in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sdas_kernels import memory
from sdas_kernels.ops.tensor_product.tables import DenseEntry, Parts


def forward(z: Tensor, x: Tensor, y: Tensor, weight: Tensor, p: Parts) -> None:
    """Add P(x, y) W to z `[B, dim_out]`, or write it where nothing else does."""
    for c in _chunks(x, p):
        _add_outputs(z[c], _products(x[c], y[c], p), _of(weight, c), p)


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, p: Parts, needs: Sequence[bool], by_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by x and y; that by the weight is written into the columns of its paths."""
    by_x, by_y = (memory.empty_like(t) if need else None for t, need in zip((x, y), needs, strict=True))
    _clear(by_weight, p)
    for c in _chunks(x, p):
        gradients, w = _output_gradients(grad[c], p), _of(weight, c)
        if by_weight is not None:
            _add_by_weight(_of(by_weight, c), _products(x[c], y[c], p), gradients, p)
        if any(needs):
            _by_inputs(_by_products(gradients, w, p), x[c], y[c], p, _rows(by_x, c), _rows(by_y, c))
    return by_x, by_y


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
    by_x, by_y = (memory.empty_like(t) if need else None for t, need in zip((x, y), needs[1:3], strict=True))
    none = x.new_empty(0)
    _clear(by_weight, p)
    for c in _chunks(x, p):
        gradients, w, w_step = _output_gradients(grad[c], p), _of(weight, c), _of(steps[2], c)
        product_step = memory.empty((len(x[c]) * p.products,), x)
        p.kernels.run(
            "double_backward",
            p.dense,
            x=x[c],
            y=y[c],
            weight=none,
            grad=_by_products(gradients, w, p),
            x_step=steps[0][c],
            y_step=steps[1][c],
            weight_step=none,
            out=product_step,
            by_x=_rows(by_x, c),
            by_y=_rows(by_y, c),
        )
        if by_grad is not None:
            _add_outputs(by_grad[c], product_step, w, p)
            _add_outputs(by_grad[c], _products(x[c], y[c], p), w_step, p.touched())
        if by_weight is not None:
            _add_by_weight(_of(by_weight, c), product_step, gradients, p)
        if any(needs[1:3]):
            more = [None if t is None else memory.empty_like(t[c]) for t in (by_x, by_y)]
            _by_inputs(_by_products(gradients, w_step, p), x[c], y[c], p, *more)
            for total, part in zip((by_x, by_y), more, strict=True):
                if total is not None and part is not None:
                    total[c].add_(part)
    return by_x, by_y


def _chunks(x: Tensor, p: Parts) -> Iterator[slice]:
    size = max(1, p.kernels.chunk_bytes // max(1, p.products * x.element_size()))
    return (slice(start, min(start + size, len(x))) for start in range(0, len(x), size))


def _of(weight: Tensor, chunk: slice) -> Tensor:
    """The weight of a chunk of samples: all of a shared one."""
    return weight if weight.ndim == 1 else weight[chunk]


def _rows(tensor: Tensor | None, chunk: slice) -> Tensor | None:
    return None if tensor is None else tensor[chunk]


def _products(x: Tensor, y: Tensor, p: Parts) -> Tensor:
    """P(x, y): the arrays of all entries, one after the other."""
    assert p.dense is not None
    found = memory.empty((len(x) * p.products,), x)
    p.kernels.run("forward", p.dense, x=x, y=y, weight=x.new_empty(0), out=found)
    return found


def _add_outputs(z: Tensor, product: Tensor, weight: Tensor, p: Parts) -> None:
    for entry, array in _arrays(product, len(z), p):
        result = _times(array, weight, entry).transpose(1, 2)
        target = z[:, p.out_slices[entry.i_out]].unflatten(-1, result.shape[1:])
        if entry.i_out in p.untouched:
            target.copy_(result)
        else:
            target.add_(result)


def _by_inputs(by_products: Tensor, x: Tensor, y: Tensor, p: Parts, by_x: Tensor | None, by_y: Tensor | None) -> None:
    assert p.dense is not None
    p.kernels.run("backward", p.dense, x=x, y=y, weight=x.new_empty(0), grad=by_products, by_x=by_x, by_y=by_y)


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
    found = memory.empty((batch * p.products,), gradients[0])
    for (entry, array), g in zip(_arrays(found, batch, p), gradients, strict=True):
        if weight.ndim == 1:
            torch.mm(g.flatten(0, 1), _shared_weight(weight, entry).T, out=array.flatten(0, 1))
            continue
        for columns, where, shape in entry.paths:
            array[:, :, columns] = torch.bmm(g, weight[:, where].unflatten(-1, shape).transpose(1, 2))
    return found


def _clear(by_weight: Tensor | None, p: Parts) -> None:
    """Zeros in the columns of the paths."""
    if by_weight is not None:
        for entry in p.entries:
            for _, where, _ in entry.paths:
                by_weight[..., where] = 0


def _add_by_weight(by_weight: Tensor, product: Tensor, gradients: list[Tensor], p: Parts) -> None:
    """Pᵀ g into the columns of every path."""
    for (entry, array), g in zip(_arrays(product, len(gradients[0]), p), gradients, strict=True):
        if by_weight.ndim == 1:
            found = torch.mm(array.flatten(0, 1).T, g.flatten(0, 1))
            for columns, where, _ in entry.paths:
                by_weight[where] += found[columns].flatten()
            continue
        for columns, where, _ in entry.paths:
            by_weight[:, where] = torch.bmm(array[:, :, columns].transpose(1, 2), g).flatten(1)
