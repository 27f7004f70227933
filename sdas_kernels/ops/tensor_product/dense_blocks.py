"""Paths whose weight, the same for all samples, mixes channels, by compiled kernels.

What `dense.py` does in steps that each pass over all samples is done here for blocks of samples whose arrays never
leave the second cache. Same functions, same results but for rounding; nothing here depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.ops.tensor_product.tables import Parts, Tables
from sdas_kernels.ops.tensor_product.tables_dense import dense_tables

_SPANS = 16  # into which the batch is cut at most to sum the gradient by the weight
_SPAN = 256  # samples at least in a span


def forward(z: Tensor, x: Tensor, y: Tensor, weight: Tensor, p: Parts) -> None:
    """Add the dense paths to z `[B, dim_out]`, or write it where there are no others."""
    out = z if p.dense_alone else memory.empty_like(z)
    _run("forward", p, x, y, weight, out=out)
    if out is not z:
        _add(z, out, p)


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, p: Parts, needs: Sequence[bool], by_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by x and y; that by the weight is written into the columns of its paths."""
    return _run("backward", p, x, y, weight, needs, by_weight, grad=grad)


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
    out = by_grad if by_grad is None or p.dense_alone else memory.empty_like(by_grad)
    found = _run("double_backward", p, x, y, weight, needs[1:3], by_weight, grad=grad, steps=steps, out=out)
    if by_grad is not None and out is not None and out is not by_grad:
        _add(by_grad, out, p)
    return found


def _add(total: Tensor, part: Tensor, p: Parts) -> None:
    """Add what the dense paths give, or put it where nothing has been written yet."""
    for entry in p.entries:
        where = p.out_slices[entry.i_out]
        if entry.i_out in p.untouched:
            total[:, where] = part[:, where]
        else:
            total[:, where] += part[:, where]


def _run(
    kernel: str,
    p: Parts,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    needs: Sequence[bool] = (False, False),
    by_weight: Tensor | None = None,
    grad: Tensor | None = None,
    steps: Sequence[Tensor] | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    t, batch = dense_tables(p.text, p.dtype), len(x)
    span = block = t.sizes["block"]
    if by_weight is not None:
        span *= -(-max(_SPAN, -(-batch // _SPANS)) // block)
    by_x = memory.empty_like(x) if needs[0] else None
    by_y = memory.empty_like(y) if needs[1] else None
    inner: dict[str, Tensor | None] = {"x": x, "y": y}
    outer: dict[str, Tensor | None] = {"y": y, "grad": grad}
    whole: dict[str, Tensor | None] = {
        **t.arrays,
        "weight": weight,
        "out": out,
        "by_x": by_x,
        "by_y": by_y,
        "by_weight": by_weight,
        "partial": None if by_weight is None else memory.empty((-(-batch // span), t.sizes["by_matrices"]), x),
    }
    if steps is not None:
        outer["y_step"] = inner["y_step"] = steps[1]
        inner["x_step"] = steps[0]
        whole["weight_step"] = steps[2]
    sides = {"inner": _members(t.inner, batch, inner), "outer": _members(t.outer, batch, outer)}
    dtype = str(x.dtype).removeprefix("torch.")
    run = getattr(native.extension(), f"tensor_product_dense_{kernel}_{dtype}")
    run(t.sizes | {"span": span} | sides | _addresses(whole), torch.get_num_threads())
    return by_x, by_y


def _members(tables: Tables, batch: int, given: dict[str, Tensor | None]) -> dict[str, int]:
    return tables.sizes | {"batch": batch, "block": 1, "shared": 0} | _addresses(tables.arrays | given)


def _addresses(given: Mapping[str, Tensor | None]) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in given.items() if tensor is not None}
