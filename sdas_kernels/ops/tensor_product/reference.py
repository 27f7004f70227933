"""The tensor product in plain PyTorch: the truth for values, gradients and second derivatives.

Every path is a form linear in each of four tensors: x, y, the weight w and (in the gradients) the output's gradient g.
One intermediate, the product of x and y before the weight acts,

    p_zuvk = Σ_ij C_ijk x_zui y_zvj        (p_zuk where both inputs share their index u)

and its like q, made of g and w, give the four contractions, and they give the whole derivative ladder:

    z = w · p        ∂w = g · p        ∂x = q · (C y)        ∂y = q · (C x)        q = w · g

A path over pairs u < v is the shared-index path of the gathered pairs; a path without weight has weight one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.constants import constant
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product.spec import Instruction, TensorProductSpec


class _Indices(NamedTuple):
    """Einsum indices of one connection mode: the multiplicity axes of x, y, their product p, the weight, the output."""

    x: str
    y: str
    p: str
    weight: str
    out: str


_OUTER = {
    "uvw": _Indices("u", "v", "uv", "uvw", "w"),
    "uvu": _Indices("u", "v", "uv", "uv", "u"),
    "uvv": _Indices("u", "v", "uv", "uv", "v"),
    "uvuv": _Indices("u", "v", "uv", "uv", "uv"),
}
_SHARED = {
    "uuw": _Indices("u", "u", "u", "uw", "w"),
    "uuu": _Indices("u", "u", "u", "u", "u"),
}
_INDICES = {**_OUTER, **_SHARED, "uvu<v": _SHARED["uuu"], "u<vw": _SHARED["uuw"]}


def forward(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str) -> torch.Tensor:
    """`[B, dim1]`, `[B, dim2]`, `[numel]` or `[B, numel]` -> `[B, dim_out]`; differentiable by PyTorch itself."""
    return _output(x, y, weight, TensorProductSpec.parse(spec))


def backward(
    grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: str, needs: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    s = TensorProductSpec.parse(spec)
    return (
        _by_x(grad, y, weight, s) if needs[0] else x.new_empty(0),
        _by_y(grad, x, weight, s) if needs[1] else x.new_empty(0),
        _by_weight(grad, x, y, weight.ndim == 1, s) if needs[2] else x.new_empty(0),
    )


def double_backward(
    grad_x: torch.Tensor | None,
    grad_y: torch.Tensor | None,
    grad_weight: torch.Tensor | None,
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    spec: str,
    needs: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight.

    With T the product and T' its paths that have a weight, that scalar is
    <grad, T(grad_x, y, w) + T(x, grad_y, w) + T'(x, y, grad_weight)>: its gradients are sums of contractions of the
    first ladder. A first argument of None is zero; what `needs` does not ask for has no elements.
    """
    s, shared = TensorProductSpec.parse(spec), weight.ndim == 1
    sums: list[list[torch.Tensor]] = [[], [], [], []]  # contributions to the gradients by grad, x, y, weight
    if grad_x is not None:
        sums[0] += [_output(grad_x, y, weight, s)] if needs[0] else []
        sums[2] += [_by_y(grad, grad_x, weight, s)] if needs[2] else []
        sums[3] += [_by_weight(grad, grad_x, y, shared, s)] if needs[3] else []
    if grad_y is not None:
        sums[0] += [_output(x, grad_y, weight, s)] if needs[0] else []
        sums[1] += [_by_x(grad, grad_y, weight, s)] if needs[1] else []
        sums[3] += [_by_weight(grad, x, grad_y, shared, s)] if needs[3] else []
    if grad_weight is not None:
        sums[0] += [_output(x, y, grad_weight, s.weighted)] if needs[0] else []
        sums[1] += [_by_x(grad, y, grad_weight, s.weighted)] if needs[1] else []
        sums[2] += [_by_y(grad, x, grad_weight, s.weighted)] if needs[2] else []
    by_grad, by_x, by_y, by_weight = (
        reduce(torch.add, terms, torch.zeros_like(operand)) if need else x.new_empty(0)
        for terms, operand, need in zip(sums, (grad, x, y, weight), needs, strict=True)
    )
    return by_grad, by_x, by_y, by_weight


def _output(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, s: TensorProductSpec) -> torch.Tensor:
    """z = w · p, `[B, dim_out]`."""
    parts: list[list[torch.Tensor]] = [[] for _ in s.irreps_out]
    for path, where in _paths(s):
        n, (w, batch) = _INDICES[path.connection_mode], _weight(weight, where, path, x)
        out = torch.einsum(f"z{n.p}k,{batch}{n.weight}->z{n.out}k", _product(x, y, path, s), w)
        parts[path.i_out].append(out.flatten(1))
    return _join(parts, s.irreps_out, x)


def _by_weight(
    grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, shared: bool, s: TensorProductSpec
) -> torch.Tensor:
    """∂w = g · p, `[numel]` where the weight is shared, else `[B, numel]`."""
    parts = []
    for path, where in _paths(s):
        if where is not None:
            n, batch = _INDICES[path.connection_mode], "" if shared else "z"
            g = _out(grad, path, s)
            by_w = torch.einsum(f"z{n.p}k,z{n.out}k->{batch}{n.weight}", _product(x, y, path, s), g)
            parts.append(by_w.flatten(0 if shared else 1))
    return torch.cat(parts, -1) if parts else x.new_zeros([0] if shared else [x.shape[0], 0])


def _by_x(grad: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, s: TensorProductSpec) -> torch.Tensor:
    """∂x = q · (C y), `[B, dim1]`."""
    parts: list[list[torch.Tensor]] = [[] for _ in s.irreps_in1]
    for path, where in _paths(s):
        n, (w, batch) = _INDICES[path.connection_mode], _weight(weight, where, path, y)
        q = torch.einsum(f"z{n.out}k,{batch}{n.weight}->z{n.p}k", _out(grad, path, s), w)
        cy = torch.einsum(f"z{n.y}j,ijk->z{n.y}ik", _y(y, path, s), _coupling(path, s, y.dtype, y.device))
        by_x = torch.einsum(f"z{n.p}k,z{n.y}ik->z{n.x}i", q, cy)
        parts[path.i_in1].append(_from_pairs(by_x, path, s, 0).flatten(1))
    return _join(parts, s.irreps_in1, y)


def _by_y(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, s: TensorProductSpec) -> torch.Tensor:
    """∂y = q · (C x), `[B, dim2]`."""
    parts: list[list[torch.Tensor]] = [[] for _ in s.irreps_in2]
    for path, where in _paths(s):
        n, (w, batch) = _INDICES[path.connection_mode], _weight(weight, where, path, x)
        q = torch.einsum(f"z{n.out}k,{batch}{n.weight}->z{n.p}k", _out(grad, path, s), w)
        cx = torch.einsum(f"z{n.x}i,ijk->z{n.x}jk", _x(x, path, s), _coupling(path, s, x.dtype, x.device))
        by_y = torch.einsum(f"z{n.p}k,z{n.x}jk->z{n.y}j", q, cx)
        parts[path.i_in2].append(_from_pairs(by_y, path, s, 1).flatten(1))
    return _join(parts, s.irreps_in2, x)


def _product(x: torch.Tensor, y: torch.Tensor, path: Instruction, s: TensorProductSpec) -> torch.Tensor:
    """p of one path, `[B, m1, m2, 2 l3 + 1]`, or `[B, m1, 2 l3 + 1]` where the inputs share their index."""
    n = _INDICES[path.connection_mode]
    cy = torch.einsum(f"z{n.y}j,ijk->z{n.y}ik", _y(y, path, s), _coupling(path, s, y.dtype, y.device))
    return torch.einsum(f"z{n.x}i,z{n.y}ik->z{n.p}k", _x(x, path, s), cy)


def _paths(s: TensorProductSpec) -> Iterator[tuple[Instruction, slice | None]]:
    """Every path with the place of its weight."""
    return zip(s.instructions, s.weight_slices, strict=True)


def _weight(
    weight: torch.Tensor, where: slice | None, path: Instruction, like: torch.Tensor
) -> tuple[torch.Tensor, str]:
    """A path's weight in its own shape, ones if it has none, and the index of its batch axis ("" if shared)."""
    if where is None:
        return like.new_ones(path.path_shape), ""
    return weight[..., where].unflatten(-1, path.path_shape), "z" if weight.ndim == 2 else ""


def _x(x: torch.Tensor, path: Instruction, s: TensorProductSpec) -> torch.Tensor:
    """A path's part of x, `[B, m1, 2 l1 + 1]`, or its u of the pairs u < v."""
    mul, ir = s.irreps_in1[path.i_in1]
    part = x[:, s.slices_in1[path.i_in1]].unflatten(-1, (mul, ir.dim))
    return part.index_select(1, _pairs(mul, x.device)[0]) if "<" in path.connection_mode else part


def _y(y: torch.Tensor, path: Instruction, s: TensorProductSpec) -> torch.Tensor:
    """A path's part of y, `[B, m2, 2 l2 + 1]`, or its v of the pairs u < v."""
    mul, ir = s.irreps_in2[path.i_in2]
    part = y[:, s.slices_in2[path.i_in2]].unflatten(-1, (mul, ir.dim))
    return part.index_select(1, _pairs(mul, y.device)[1]) if "<" in path.connection_mode else part


def _out(grad: torch.Tensor, path: Instruction, s: TensorProductSpec) -> torch.Tensor:
    """A path's part of the output's gradient, in the shape of its einsum indices."""
    mul, ir = s.irreps_out[path.i_out]
    shape = path.path_shape if path.connection_mode == "uvuv" else (mul,)
    return grad[:, s.slices_out[path.i_out]].unflatten(-1, (*shape, ir.dim))


def _from_pairs(gradient: torch.Tensor, path: Instruction, s: TensorProductSpec, side: int) -> torch.Tensor:
    """Sum over pairs back to multiplicities, by a matrix product, whose order of summation is fixed on every device."""
    if "<" not in path.connection_mode:
        return gradient
    mul = s.irreps_in1[path.i_in1].mul
    members = torch.arange(mul, device=gradient.device)
    member = (_pairs(mul, gradient.device)[side][:, None] == members).to(gradient.dtype)
    return torch.einsum("zqi,qu->zui", gradient, member)


def _join(parts: list[list[torch.Tensor]], irreps: Irreps, like: torch.Tensor) -> torch.Tensor:
    """`[B, dim]` from the contributions to each entry; an entry that has none is zero."""
    batch = like.shape[0]
    sums = [
        reduce(torch.add, terms) if terms else like.new_zeros(batch, entry.dim)
        for terms, entry in zip(parts, irreps, strict=True)
    ]
    return torch.cat(sums, -1) if sums else like.new_zeros(batch, 0)


def _coupling(path: Instruction, s: TensorProductSpec, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    l1, l2, l3 = s.irreps_in1[path.i_in1].ir.l, s.irreps_in2[path.i_in2].ir.l, s.irreps_out[path.i_out].ir.l
    return _scaled_3j(l1, l2, l3, path.path_weight, dtype, device)


@constant
def _scaled_3j(l1: int, l2: int, l3: int, factor: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return (factor * wigner_3j(l1, l2, l3)).to(dtype=dtype, device=device)


def _pairs(mul: int, device: torch.device) -> torch.Tensor:
    """All u < v, `[2, mul (mul - 1) / 2]`, v running fastest."""
    return torch.triu_indices(mul, mul, 1, device=device)
