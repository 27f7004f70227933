"""Neighbor attention on the CPU by the fused kernels of `csrc/ops/neighbor_attention`.

They are compiled for harmonics up to a degree; above it the plain PyTorch functions run.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.ops.needs import like
from sdas_kernels.ops.neighbor_attention import reference
from sdas_kernels.ops.neighbor_attention.composition import ALL
from sdas_kernels.ops.neighbor_tensor_product import cpp as product
from sdas_kernels.paths import Paths

OPERANDS = ("query", "key", "sink", "value", "radial_gain", "harmonics", "radial", "envelope")
BY_OPERANDS = tuple(f"by_{name}" for name in OPERANDS)
STEPS = tuple(f"{name}_step" for name in OPERANDS)


def forward(*arguments: Any) -> Tensor:
    """`[N, rows, C]`."""
    operands, senders, row_ptr, paths = _split(arguments)
    if paths.lmax_harmonics > product.MAX_DEGREE:
        return reference.forward(*arguments)
    value = operands["value"]
    out = memory.empty((value.shape[0], paths.rows, value.shape[2]), value)
    _run("forward", paths, senders, row_ptr, operands | {"out": out})
    return out


def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients by the eight operands; those that a last argument, `needs`, does not ask for may have no elements."""
    arguments, needs = arguments[:11], arguments[11] if len(arguments) > 11 else ALL
    operands, senders, row_ptr, paths = _split(arguments)
    if paths.lmax_harmonics > product.MAX_DEGREE:
        return reference.backward(grad, *arguments)
    sent = needs[1] or needs[3]  # the pass over senders makes both
    made = (needs[0], sent, needs[2], sent, needs[4], True, True, True)
    results = like(list(operands.values()), made)
    wanted = {name: result for name, result, make in zip(BY_OPERANDS, results, made, strict=True) if make}
    _run("backward", paths, senders, row_ptr, operands | wanted | {"grad": grad})
    return tuple(results)


def double_backward(*tangents_grad_and_arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of <tangents, backward(grad, ...)> by grad and the eight operands."""
    tangents, grad = tangents_grad_and_arguments[:8], tangents_grad_and_arguments[8]
    arguments = tangents_grad_and_arguments[9:]
    operands, senders, row_ptr, paths = _split(arguments)
    if paths.lmax_harmonics > product.MAX_DEGREE:
        return reference.double_backward(*tangents_grad_and_arguments)
    results = [memory.empty_like(tensor) for tensor in (grad, *operands.values())]
    tensors = operands | dict(zip(("out", *BY_OPERANDS), results, strict=True))
    tensors |= dict(zip(STEPS, tangents, strict=True))
    _run("double_backward", paths, senders, row_ptr, tensors | {"grad": grad})
    return tuple(results)


def _split(arguments: tuple[Any, ...]) -> tuple[dict[str, Tensor], Tensor, Tensor, Paths]:
    """Operands by name, senders, row_ptr, paths."""
    operands = dict(zip(OPERANDS, arguments, strict=False))
    index, lmax_out, even_only = arguments[8:]
    lmax_in, lmax = math.isqrt(operands["value"].shape[1]) - 1, operands["radial_gain"].shape[1] - 1
    return operands, index[1], index[2], Paths(lmax_in, lmax, lmax_out, even_only)


def _run(kernel: str, paths: Paths, senders: Tensor, row_ptr: Tensor, tensors: dict[str, Tensor]) -> None:
    value, key, radial = tensors["value"], tensors["key"], tensors["radial"]
    constants, kernels = _constants(paths, value.dtype)
    members = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    members["nodes"], members["m1"], members["channels"] = value.shape
    _, members["heads"], members["key_channels"] = key.shape
    members["edges"], members["radials"] = radial.shape
    members["senders"], members["row_ptr"] = senders.data_ptr(), row_ptr.data_ptr()
    kernels[kernel](constants | members, torch.get_num_threads())


@cache
def _constants(paths: Paths, dtype: torch.dtype) -> tuple[dict[str, int], dict[str, Any]]:
    """Degrees, rows and the addresses of the coupling, whose tables are cached for good; and the kernels by name."""
    tables = product.coupling_tables(paths, dtype)
    addresses = {name: table.data_ptr() for name, table in tables.items()}
    extension, suffix = native.extension(), str(dtype).removeprefix("torch.")
    names = ("forward", "backward", "double_backward")
    kernels = {name: getattr(extension, f"neighbor_attention_{name}_{suffix}") for name in names}
    sizes = {"lmax": paths.lmax_harmonics, "rows": paths.rows, "entries": len(tables["entry_row"])}
    return sizes | addresses, kernels
