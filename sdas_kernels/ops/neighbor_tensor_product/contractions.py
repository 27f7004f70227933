"""The derivative ladder from three contractions, by whichever backend computes them.

What a backend's kernels leave to PyTorch is linear algebra on arrays of `[E, L2+1, K]`, one number per edge, degree and
head: the weight α · (R W) and its derivatives. Where values are stored in 16 bits it is done in float32.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from sdas_kernels.ops.neighbor_tensor_product import reference
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths


class Contractions(Protocol):
    """One call's kernels. Operands are weight `[E, L2+1, K]`, harmonics `[E, M2]`, value `[N, M1, C]` and z.

    Each takes `<operand>_step` too, in a double backward: the result is then the derivative along the steps.
    """

    def __init__(self, o: Operands, index: list[Tensor], paths: Paths) -> None: ...

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether there are kernels for these degrees; where not, the plain PyTorch functions run."""

    def tiles(self, **operands: Tensor) -> Tensor:
        """From weight, harmonics, value: z `[N, rows, C]`."""

    def to_senders(self, **operands: Tensor) -> Tensor:
        """From z, weight, harmonics: by value `[N, M1, C]`."""

    def edge_dot(self, **operands: Tensor) -> tuple[Tensor, ...]:
        """From all four: by weight, by harmonics, and with steps by weight_step."""


class Weight(NamedTuple):
    """The weight of each edge, degree and head, and the radial gain that is one factor of it."""

    weight: Tensor  # [E, L2+1, K]
    gain: Tensor  # [E, L2+1, K]


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
    o = _wide(given)
    return kernels(o, index, paths).tiles(weight=_weight(o).weight, harmonics=o.harmonics, value=value)


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
    job, w = kernels(o, index, paths), _weight(o)
    by_value = job.to_senders(z=grad, weight=w.weight, harmonics=o.harmonics)
    by_weight, by_harmonics = job.edge_dot(z=grad, weight=w.weight, harmonics=o.harmonics, value=value)
    by_radial, by_radial_gain = _gain_backward(by_weight * o.attention[:, None, :], o.radial, o.radial_gain)
    by_attention = (by_weight * w.gain).sum(1)
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
    job, w = kernels(o, index, paths), _weight(o)
    gain_step = _gain(step.radial, o.radial_gain) + _gain(o.radial, step.radial_gain)
    weight_step = step.attention[:, None, :] * w.gain + o.attention[:, None, :] * gain_step
    along = {
        "weight": w.weight,
        "weight_step": weight_step,
        "harmonics": o.harmonics,
        "harmonics_step": step.harmonics,
    }
    by_grad = job.tiles(value=value, value_step=grad_value, **along)
    by_value = job.to_senders(z=grad, **along)
    by_weight, by_harmonics, by_weight_step = job.edge_dot(z=grad, value=value, value_step=grad_value, **along)

    by_attention = (by_weight_step * gain_step + by_weight * w.gain).sum(1)
    by_gain = by_weight_step * step.attention[:, None, :] + by_weight * o.attention[:, None, :]
    direct = _gain_backward(by_gain, o.radial, o.radial_gain)
    crossed = _gain_backward(by_weight_step * o.attention[:, None, :], step.radial, step.radial_gain)
    by_radial, by_radial_gain = (a + b for a, b in zip(direct, crossed, strict=True))
    return _as(grad, by_grad, by_attention, by_radial, by_radial_gain, by_value, by_harmonics)


def _wide(o: Operands) -> Operands:
    """With what belongs to edges and heads in float32 at least."""
    wide = (t.float() if t.element_size() < 4 else t for t in o)
    return Operands(*wide)._replace(value=o.value)


def _as(like: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
    """In the dtype of `like`."""
    return tuple(t.to(like.dtype) for t in results)


def _weight(o: Operands) -> Weight:
    gain = _gain(o.radial, o.radial_gain)
    return Weight(o.attention[:, None, :] * gain, gain)


def _gain(radial: Tensor, radial_gain: Tensor) -> Tensor:
    """Σ_n R_n W_kln: `[E, L2+1, K]`."""
    heads, degrees, _ = radial_gain.shape
    return (radial @ radial_gain.transpose(0, 1).flatten(0, 1).T).unflatten(1, (degrees, heads))


def _gain_backward(by_gain: Tensor, radial: Tensor, radial_gain: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by radial `[E, n]` and radial_gain `[K, L2+1, n]`."""
    by_degree = radial_gain.transpose(0, 1).flatten(0, 1)
    flat = by_gain.flatten(1)
    by_radial_gain = (flat.T @ radial).unflatten(0, by_gain.shape[1:]).transpose(0, 1)
    return flat @ by_degree, by_radial_gain.contiguous()
