"""Tensor product by the segmented polynomials of cuequivariance-torch; runs only where `use_backend` asks for it.

All paths of one connection mode are one polynomial, linear in each of weight, x, y and output, in the layout `ir_mul`.
Each of the four as the last operand gives the value and the three gradients, and their sums the second derivatives. On
the CPU cuequivariance evaluates them by einsum; on a GPU by its kernel for a single uniform mode where the paths of a
mode are of that form and its kernels are installed, else by einsum too. Paths over pairs (`uvu<v`, `u<vw`) go to the
reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import cuequivariance as cue
import cuequivariance_torch as cuet
import torch
from torch import Tensor

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.irreps import Irreps, ir_mul_from_mul_ir, mul_ir_from_ir_mul
from sdas_kernels.ops.tensor_product import reference
from sdas_kernels.ops.tensor_product.spec import Instruction, TensorProductSpec

X, Y, WEIGHT, OUT = range(4)

_SUBSCRIPTS = {  # of weight, x, y and output
    "uvw": ("uvw", "iu", "jv", "kw"),
    "uvu": ("uv", "iu", "jv", "ku"),
    "uvv": ("uv", "iu", "jv", "kv"),
    "uvuv": ("uv", "iu", "jv", "kuv"),
    "uuw": ("uw", "iu", "ju", "kw"),
    "uuu": ("u", "iu", "ju", "ku"),
}


class _Group(NamedTuple):
    """The paths of one mode: where their weights lie (an empty list: they are ones), how many numbers they are, and the
    polynomial of each last operand."""

    weights: list[slice]
    numel: int
    polynomials: dict[int, Any]


class _Plan(NamedTuple):
    spec: TensorProductSpec
    groups: list[_Group]
    rest: TensorProductSpec | None  # what the reference does
    rest_weights: list[slice]


def forward(x: Tensor, y: Tensor, weight: Tensor, spec: str) -> Tensor:
    """`[B, dim1]`, `[B, dim2]`, `[numel]` or `[B, numel]` -> `[B, dim_out]`."""
    return _contract(OUT, {X: x, Y: y, WEIGHT: weight}, _plan(spec, x.device))


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, spec: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    operands, plan = {X: x, Y: y, WEIGHT: weight, OUT: grad}, _plan(spec, x.device)
    by_x, by_y, by_weight = (
        _contract(target, operands, plan) if need else x.new_empty(0)
        for target, need in zip((X, Y, WEIGHT), needs, strict=True)
    )
    return by_x, by_y, by_weight


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight."""
    operands = {X: x, Y: y, WEIGHT: weight, OUT: grad}
    sums = {
        target: torch.zeros_like(operands[target])
        for target, need in zip((OUT, X, Y, WEIGHT), needs, strict=True)
        if need
    }
    for stepped, step in ((X, grad_x), (Y, grad_y), (WEIGHT, grad_weight)):
        if step is not None:
            text = TensorProductSpec.parse(spec).weighted.text if stepped == WEIGHT else spec
            for target in sums.keys() - {stepped}:
                sums[target] += _contract(target, operands | {stepped: step}, _plan(text, x.device))
    by_grad, by_x, by_y, by_weight = (
        sums[target] if need else x.new_empty(0) for target, need in zip((OUT, X, Y, WEIGHT), needs, strict=True)
    )
    return by_grad, by_x, by_y, by_weight


def _contract(target: int, operands: dict[int, Tensor], plan: _Plan) -> Tensor:
    """The form of all paths with one of its operands taken out, in that operand's shape."""
    s, weight = plan.spec, operands[WEIGHT]
    irreps = {X: s.irreps_in1, Y: s.irreps_in2, OUT: s.irreps_out}
    batch = len(operands[X])
    segments = {k: ir_mul_from_mul_ir(t, irreps[k]) for k, t in operands.items() if k not in (WEIGHT, target)}
    shape = weight.shape if target == WEIGHT else (batch, irreps[target].dim)
    found = weight.new_zeros(shape)
    for group in plan.groups:
        if target == WEIGHT and not group.weights:
            continue
        if group.weights:
            segments[WEIGHT] = torch.cat([weight[..., where] for where in group.weights], -1).view(-1, group.numel)
        else:
            segments[WEIGHT] = weight.new_ones(1, group.numel)
        (part,) = group.polynomials[target]([segments[k] for k in (WEIGHT, X, Y, OUT) if k != target])
        if target == WEIGHT:
            _put(found, part.sum(0) if weight.ndim == 1 else part, group.weights)
        else:
            found += part
    if target != WEIGHT:
        found = mul_ir_from_ir_mul(found, irreps[target])
    if plan.rest is None:
        return found
    columns = torch.cat([weight[..., where] for where in plan.rest_weights] or [weight[..., :0]], -1)
    part = _by_reference(target, operands | {WEIGHT: columns}, plan.rest)
    if target != WEIGHT:
        return found + part
    _put(found, part, plan.rest_weights)
    return found


def _by_reference(target: int, operands: dict[int, Tensor], rest: TensorProductSpec) -> Tensor:
    given = operands[X], operands[Y], operands[WEIGHT], rest.text
    if target == OUT:
        return reference.forward(*given)
    return reference.backward(operands[OUT], *given, [target == k for k in (X, Y, WEIGHT)])[target]


def _put(total: Tensor, part: Tensor, slices: list[slice]) -> None:
    """The columns of `part` to where they belong."""
    start = 0
    for where in slices:
        stop = start + where.stop - where.start
        total[..., where] = part[..., start:stop]
        start = stop


@lru_cache(maxsize=256)
def _plan(text: str, device: torch.device) -> _Plan:
    s = TensorProductSpec.parse(text)
    members: dict[tuple[Any, ...], list[tuple[Instruction, slice | None]]] = {}
    rest: list[tuple[Instruction, slice | None]] = []
    for path, where in zip(s.instructions, s.weight_slices, strict=True):
        mode = path.connection_mode
        if mode not in _SUBSCRIPTS:
            rest.append((path, where))
        elif 0 not in path.path_shape and s.irreps_out[path.i_out].mul:
            product = path.path_shape if mode == "uvuv" else ()  # two paths may split an entry differently
            members.setdefault((mode, where is None, *product), []).append((path, where))
    groups = [_group(paths, s, device) for paths in members.values()]
    rest_spec = TensorProductSpec(s.irreps_in1, s.irreps_in2, s.irreps_out, tuple(path for path, _ in rest))
    return _Plan(s, groups, rest_spec if rest else None, [where for _, where in rest if where is not None])


def _group(paths: list[tuple[Instruction, slice | None]], s: TensorProductSpec, device: torch.device) -> _Group:
    """The polynomials of paths that have one mode, and all a weight or none."""
    subscripts = _SUBSCRIPTS[paths[0][0].connection_mode]
    product = cue.SegmentedTensorProduct.from_subscripts(",".join(subscripts) + "+ijk")
    numbers = [
        _segments(product, operand, irreps, len(subscripts[operand]), paths[0][0])
        for operand, irreps in enumerate((s.irreps_in1, s.irreps_in2, s.irreps_out), start=1)
    ]
    for number, (path, _) in enumerate(paths):
        (_, ir1), (_, ir2), (_, ir3) = s.entries(path)
        coupling = path.path_weight * wigner_3j(ir1.l, ir2.l, ir3.l)
        ends = [found[i] for found, i in zip(numbers, (path.i_in1, path.i_in2, path.i_out), strict=True)]
        product.add_segment(0, path.path_shape)
        product.add_path(number, *ends, c=coupling.numpy())
    weights = [where for _, where in paths if where is not None]
    order = enumerate((WEIGHT, X, Y, OUT))
    polynomials = {k: _polynomial(product.move_operand_last(place), device) for place, k in order}
    return _Group(weights, sum(prod(path.path_shape) for path, _ in paths), polynomials)


def _segments(product: Any, operand: int, irreps: Irreps, axes: int, path: Instruction) -> dict[int, int]:
    """Add the entries as segments, split in two multiplicities for three axes; returns the segment of each."""
    numbers: dict[int, int] = {}
    for i, (mul, ir) in enumerate(irreps):
        if mul:
            multiplicities = path.path_shape if axes == 3 and mul == prod(path.path_shape) else (mul, 1)[: axes - 1]
            numbers[i] = len(numbers)
            product.add_segment(operand, (ir.dim, *multiplicities))
    return numbers


def _polynomial(product: Any, device: torch.device) -> Any:
    """A module that evaluates the last operand from the others."""
    polynomial, method = cue.SegmentedPolynomial.eval_last_operand(product), "naive"
    if device.type == "cuda":
        flat = polynomial.flatten_coefficient_modes().squeeze_modes()
        if flat.all_same_segment_shape() and len(flat.operations[0][1].subscripts.modes()) == 1:
            polynomial, method = flat, "uniform_1d"
    return cuet.SegmentedPolynomial(polynomial, method=method).to(device)
