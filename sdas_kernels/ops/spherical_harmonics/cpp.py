"""Real spherical harmonics on the CPU by the compiled kernels of ``csrc/ops/spherical_harmonics``.

The three functions take contiguous CPU tensors of one dtype, float32 or float64, and assume that their shapes
agree: the public function has checked them. M = (lmax + 1)².
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.constants import constant
from sdas_kernels.ops.spherical_harmonics.scale import factors

#: The largest degree for which kernels are compiled.
MAX_DEGREE = 8

_SUFFIX = {torch.float32: "float32", torch.float64: "float64"}


@cache
def _kernel(step: str, dtype: torch.dtype) -> Callable[..., None]:
    """Of the extension, looked up once: after a large result, what a look-up reads is no longer in the caches."""
    kernel: Callable[..., None] = getattr(native.extension(), f"spherical_harmonics_{step}_{_SUFFIX[dtype]}")
    return kernel


@constant
def _factors(lmax: int, normalization: str, dtype: torch.dtype) -> Tensor:
    """`scale.factors` as a tensor."""
    return torch.tensor(factors(lmax, normalization), dtype=torch.float64).to(dtype)


def forward(vectors: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Harmonics [B, M] of vectors [B, 3]."""
    harmonics = memory.empty((vectors.shape[0], (lmax + 1) ** 2), vectors)
    run = _kernel("forward", vectors.dtype)
    scale = _factors(lmax, normalization, vectors.dtype)
    run(
        vectors.data_ptr(),
        harmonics.data_ptr(),
        vectors.shape[0],
        lmax,
        normalize,
        scale.data_ptr(),
        torch.get_num_threads(),
    )
    return harmonics


def backward(grad: Tensor, vectors: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Gradient [B, 3] of Σ_k grad_k Y_k with respect to vectors [B, 3]; grad [B, M]."""
    gradient = memory.empty_like(vectors)
    run = _kernel("backward", vectors.dtype)
    scale = _factors(lmax, normalization, vectors.dtype)
    run(
        grad.data_ptr(),
        vectors.data_ptr(),
        gradient.data_ptr(),
        vectors.shape[0],
        lmax,
        normalize,
        scale.data_ptr(),
        torch.get_num_threads(),
    )
    return gradient


def double_backward(
    grad_grad: Tensor, grad: Tensor, vectors: Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[Tensor, Tensor]:
    """Gradients ([B, M], [B, 3]) of Σ grad_grad · backward(grad, vectors) with respect to grad and vectors."""
    grad_of_grad = memory.empty_like(grad)
    grad_of_vectors = memory.empty_like(vectors)
    run = _kernel("double_backward", vectors.dtype)
    scale = _factors(lmax, normalization, vectors.dtype)
    run(
        grad_grad.data_ptr(),
        grad.data_ptr(),
        vectors.data_ptr(),
        grad_of_grad.data_ptr(),
        grad_of_vectors.data_ptr(),
        vectors.shape[0],
        lmax,
        normalize,
        scale.data_ptr(),
        torch.get_num_threads(),
    )
    return grad_of_grad, grad_of_vectors
