"""Neighbor tensor product on the CPU by the compiled kernels of `csrc/cpu/neighbor_tensor_product.cpp`.

The kernels do the three contractions, coupling included. What is left here is linear algebra on arrays of
`[E, L2+1, K]`, one number per edge, degree and head: the weight α · (R W) and its derivatives. Kernels are compiled for harmonics up to
`MAX_DEGREE`; above, the plain PyTorch functions run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdas_kernels import native
from sdas_kernels.ops.neighbor_tensor_product import reference
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths, coupling

MAX_DEGREE = 4


def _up_to_max_degree(function: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(reference, function.__name__)

    @wraps(function)
    def choose(*arguments: Any) -> Any:
        harmonics = arguments[-4]
        return (function if harmonics.shape[1] <= (MAX_DEGREE + 1) ** 2 else plain)(*arguments)

    return choose


class Weight(NamedTuple):
    """The weight of each edge, degree and head, and the radial gain that is one factor of it."""

    weight: Tensor  # [E, L2+1, K]
    gain: Tensor  # [E, L2+1, K]


@_up_to_max_degree
def forward(
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
    o = Operands(attention, radial, radial_gain, value, harmonics)
    job = _Job(o, index, lmax_out, even_only)
    return job.tiles(weight=_weight(o).weight, harmonics=harmonics, value=value)


@_up_to_max_degree
def backward(
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
    o = Operands(attention, radial, radial_gain, value, harmonics)
    job, w = _Job(o, index, lmax_out, even_only), _weight(o)
    by_value = job.to_senders(z=grad, weight=w.weight, harmonics=harmonics)
    by_weight, by_harmonics = job.edge_dot(z=grad, weight=w.weight, harmonics=harmonics, value=value)
    by_radial, by_radial_gain = _gain_backward(by_weight * attention[:, None, :], radial, radial_gain)
    return (by_weight * w.gain).sum(1), by_radial, by_radial_gain, by_value, by_harmonics


@_up_to_max_degree
def double_backward(
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
    o = Operands(attention, radial, radial_gain, value, harmonics)
    job, w = _Job(o, index, lmax_out, even_only), _weight(o)
    gain_step = _gain(grad_radial, radial_gain) + _gain(radial, grad_radial_gain)
    weight_step = grad_attention[:, None, :] * w.gain + attention[:, None, :] * gain_step
    along = {
        "weight": w.weight,
        "weight_step": weight_step,
        "harmonics": harmonics,
        "harmonics_step": grad_harmonics,
    }
    by_grad = job.tiles(value=value, value_step=grad_value, **along)
    by_value = job.to_senders(z=grad, **along)
    by_weight, by_harmonics, by_weight_step = job.edge_dot(z=grad, value=value, value_step=grad_value, **along)

    by_attention = (by_weight_step * gain_step + by_weight * w.gain).sum(1)
    by_gain = by_weight_step * grad_attention[:, None, :] + by_weight * attention[:, None, :]
    direct = _gain_backward(by_gain, radial, radial_gain)
    crossed = _gain_backward(by_weight_step * attention[:, None, :], grad_radial, grad_radial_gain)
    return by_grad, by_attention, direct[0] + crossed[0], direct[1] + crossed[1], by_value, by_harmonics


class _Job:
    """Sizes, graph and coupling, common to the kernels of one call."""

    def __init__(self, o: Operands, index: list[Tensor], lmax_out: int, even_only: bool) -> None:
        self.paths = o.paths(lmax_out, even_only)
        self.like = o.value
        self.heads = o.attention.shape[1]
        self.sizes = {
            "nodes": o.value.shape[0],
            "edges": o.attention.shape[0],
            "lmax": self.paths.lmax_harmonics,
            "m1": o.value.shape[1],
            "rows": self.paths.rows,
            "channels": o.value.shape[2],
            "heads": self.heads,
        }
        names = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")
        self.constants = dict(zip(names, index, strict=True)) | _tables(self.paths, o.value.dtype)

    def tiles(self, **operands: Tensor) -> Tensor:
        """`[N, rows, C]`."""
        out = self.like.new_empty(len(self.like), self.paths.rows, self.like.shape[2])
        self._run("tiles", out_z=out, **operands)
        return out

    def to_senders(self, **operands: Tensor) -> Tensor:
        """`[N, M1, C]`."""
        out = torch.empty_like(self.like)
        self._run("to_senders", out_value=out, **operands)
        return out

    def edge_dot(self, **operands: Tensor) -> tuple[Tensor, ...]:
        """By weight `[E, L2+1, K]`, by harmonics `[E, M2]`, and with steps by weight_step `[E, L2+1, K]`."""
        names = ["out_weight", "out_harmonics"] + (["out_weight_step"] if "weight_step" in operands else [])
        out = {name: torch.empty_like(operands[name.removeprefix("out_")]) for name in names}
        self._run("edge_dot", **operands, **out)
        return tuple(out.values())

    def _run(self, kernel: str, **tensors: Tensor) -> None:
        dtype = str(self.like.dtype).removeprefix("torch.")
        run = getattr(native.extension(), f"neighbor_tensor_product_{kernel}_{dtype}")
        addresses = {name: tensor.data_ptr() for name, tensor in (self.constants | tensors).items()}
        run(self.sizes | addresses, torch.get_num_threads())


@cache
def _tables(paths: Paths, dtype: torch.dtype) -> dict[str, Tensor]:
    """Non-zero coefficients sorted by row and by pair m1·M2 + m2."""
    matrix = coupling(paths).flatten(1)
    tables = {}
    for name, other, m in (("row", "pair", matrix), ("pair", "row", matrix.T.contiguous())):
        first, second = m.nonzero(as_tuple=True)
        counts = torch.bincount(first, minlength=len(m))
        tables[f"{name}_start"] = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        tables[f"{name}_{other}"] = second.to(torch.int32)
        tables[f"{name}_coefficient"] = m[first, second].to(dtype)
    return tables


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
