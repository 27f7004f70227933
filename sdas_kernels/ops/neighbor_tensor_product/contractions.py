"""The derivative ladder from three contractions, by whichever backend computes them.

What a backend's kernels leave to PyTorch is the linear algebra between the radial gain Σ_n R_n W_n, `[E, L2+1, K]`, and
its factors. Where values are stored in 16 bits, what belongs to edges and heads is taken to float32.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sdas_kernels.ops.neighbor_tensor_product import reference
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths


class Contractions(Protocol):
    """One call's kernels. With steps, in a double backward, each result is the derivative along them."""

    def __init__(self, o: Operands, step: Operands | None, index: list[Tensor], paths: Paths) -> None: ...

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether there are kernels for these degrees; where not, the plain PyTorch functions run."""

    def tiles(self) -> Tensor:
        """z `[N, rows, C]`."""

    def to_senders(self, z: Tensor) -> Tensor:
        """From the gradient by z: by value `[N, M1, C]`."""

    def edge_dot(self, z: Tensor) -> tuple[Tensor, ...]:
        """From the gradient by z: by attention `[E, K]`, by gain `[E, L2+1, K]`, by harmonics `[E, M2]`.

        With steps a fourth: by the gain's step, which is the gradient by the gain without steps.
        """


def forward(
    kernels: type[Contractions],
    attention: Tensor,
    radial: Tensor,
    radial_gain: Tensor,
    value: Tensor,
    harmonics: Tensor,
    index: list[Tensor],
    lmax_out: int,
    even_only: bool,
) -> Tensor:
    """`[N, rows, C]`."""
    given = Operands(attention, radial, radial_gain, value, harmonics)
    paths = given.paths(lmax_out, even_only)
    if not kernels.serve(paths):
        return reference.forward(*given, index, lmax_out, even_only)
    return kernels(_wide(given), None, index, paths).tiles()


def backward(
    kernels: type[Contractions],
    grad: Tensor,
    attention: Tensor,
    radial: Tensor,
    radial_gain: Tensor,
    value: Tensor,
    harmonics: Tensor,
    index: list[Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[Tensor, ...]:
    """Gradients by the five operands."""
    given = Operands(attention, radial, radial_gain, value, harmonics)
    paths = given.paths(lmax_out, even_only)
    if not kernels.serve(paths):
        return reference.backward(grad, *given, index, lmax_out, even_only)
    o = _wide(given)
    job = kernels(o, None, index, paths)
    by_value = job.to_senders(grad)
    by_attention, by_gain, by_harmonics = job.edge_dot(grad)
    by_radial, by_radial_gain = _gain_backward(by_gain, o.radial, o.radial_gain)
    return _as(grad, by_attention, by_radial, by_radial_gain, by_value, by_harmonics)


def double_backward(
    kernels: type[Contractions],
    grad_attention: Tensor,
    grad_radial: Tensor,
    grad_radial_gain: Tensor,
    grad_value: Tensor,
    grad_harmonics: Tensor,
    grad: Tensor,
    attention: Tensor,
    radial: Tensor,
    radial_gain: Tensor,
    value: Tensor,
    harmonics: Tensor,
    index: list[Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad and the five operands."""
    given = Operands(attention, radial, radial_gain, value, harmonics)
    steps = Operands(grad_attention, grad_radial, grad_radial_gain, grad_value, grad_harmonics)
    paths = given.paths(lmax_out, even_only)
    if not kernels.serve(paths):
        return reference.double_backward(*steps, grad, *given, index, lmax_out, even_only)
    o, step = _wide(given), _wide(steps)
    job = kernels(o, step, index, paths)
    by_grad, by_value = job.tiles(), job.to_senders(grad)
    by_attention, by_gain, by_harmonics, by_gain_step = job.edge_dot(grad)
    direct = _gain_backward(by_gain, o.radial, o.radial_gain)
    crossed = _gain_backward(by_gain_step, step.radial, step.radial_gain)
    by_radial, by_radial_gain = (a + b for a, b in zip(direct, crossed, strict=True))
    return _as(grad, by_grad, by_attention, by_radial, by_radial_gain, by_value, by_harmonics)


def _wide(o: Operands) -> Operands:
    """With what belongs to edges and heads in float32 at least."""
    wide = (t.float() if t.element_size() < 4 else t for t in o)
    return Operands(*wide)._replace(value=o.value)


def _as(like: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
    """In the dtype of `like`."""
    return tuple(t.to(like.dtype) for t in results)


def _gain_backward(by_gain: Tensor, radial: Tensor, radial_gain: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by radial `[E, n]` and radial_gain `[K, L2+1, n]`."""
    by_degree = radial_gain.transpose(0, 1).flatten(0, 1)
    flat = by_gain.flatten(1)
    by_radial_gain = (flat.T @ radial).unflatten(0, by_gain.shape[1:]).transpose(0, 1)
    return flat @ by_degree, by_radial_gain.contiguous()
