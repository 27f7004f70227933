"""Radial basis on the CPU by the compiled kernels of `csrc/ops/radial_basis`, alone or with the envelope."""

from __future__ import annotations

import torch
from torch import Tensor

from sdas_kernels import memory, native


def forward(lengths: Tensor, n: int, cutoff: float, p: int) -> Tensor:
    """`[E]` -> `[E, n]`."""
    radial = memory.empty((lengths.shape[0], n), lengths)
    _run("forward", lengths, n, cutoff, p, radial, None)
    return radial


def backward(grad: Tensor, lengths: Tensor, cutoff: float, p: int) -> Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]` -> `[E]`."""
    by_lengths = memory.empty_like(lengths)
    _run("backward", lengths, grad.shape[1], cutoff, p, grad, None, by_lengths)
    return by_lengths


def double_backward(grad_grad: Tensor, grad: Tensor, lengths: Tensor, cutoff: float, p: int) -> tuple[Tensor, Tensor]:
    """Gradients of <grad_grad, backward(grad, lengths)> by grad `[E, n]` and by lengths `[E]`."""
    by_grad, by_lengths = memory.empty_like(grad), memory.empty_like(lengths)
    _run("double_backward", lengths, grad.shape[1], cutoff, p, grad, None, grad_grad, by_grad, None, by_lengths)
    return by_grad, by_lengths


def forward_with_envelope(lengths: Tensor, n: int, cutoff: float, p: int) -> tuple[Tensor, Tensor]:
    """`[E]` -> `[E, n]` and the envelope `[E]`."""
    radial, envelope = memory.empty((lengths.shape[0], n), lengths), memory.empty_like(lengths)
    _run("forward", lengths, n, cutoff, p, radial, envelope)
    return radial, envelope


def backward_with_envelope(grad: Tensor, grad_envelope: Tensor, lengths: Tensor, cutoff: float, p: int) -> Tensor:
    """Gradient by the lengths: `[E, n]`, `[E]`, `[E]` -> `[E]`."""
    by_lengths = memory.empty_like(lengths)
    _run("backward", lengths, grad.shape[1], cutoff, p, grad, grad_envelope, by_lengths)
    return by_lengths


def double_backward_with_envelope(
    grad_grad: Tensor, grad: Tensor, grad_envelope: Tensor, lengths: Tensor, cutoff: float, p: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <grad_grad, backward_with_envelope(grad, grad_envelope, lengths)> by the last three."""
    by_grad, by_envelope, by_lengths = (memory.empty_like(t) for t in (grad, grad_envelope, lengths))
    results = (by_grad, by_envelope, by_lengths)
    _run("double_backward", lengths, grad.shape[1], cutoff, p, grad, grad_envelope, grad_grad, *results)
    return results


def _run(kernel: str, lengths: Tensor, n: int, cutoff: float, p: int, *tensors: Tensor | None) -> None:
    """A tensor that is None is a null address: the envelope where it is not wanted."""
    suffix = "float32" if lengths.dtype == torch.float32 else "float64"
    run = getattr(native.extension(), f"radial_basis_{kernel}_{suffix}")
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    run(lengths.shape[0], n, p, cutoff, lengths.data_ptr(), *addresses, torch.get_num_threads())
