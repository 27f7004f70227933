"""Neighbor tensor product in plain PyTorch: the truth for values, gradients and second derivatives.

With B_ekm = w_e^{k,l(m)} Y_em the weighted harmonics, the sum is bilinear in B and the value, and three contractions
make the whole ladder: reduce over the neighbors of the receiver (`_tiles`), over the transposed list (`_to_senders`),
and a dot per edge (`_edge_dot`). The coupling to z is a constant linear map after the sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sdas_kernels.paths import Paths, coupling, gather_table
from sdas_kernels.segment import of_receivers, of_senders, sum_to_receivers, sum_to_senders


class Operands(NamedTuple):
    """The operator's tensors, or tangents of them."""

    attention: torch.Tensor  # [E, K]
    radial: torch.Tensor  # [E, n]
    radial_gain: torch.Tensor  # [K, L2+1, n]
    value: torch.Tensor  # [N, M1, C]
    harmonics: torch.Tensor  # [E, M2]

    def paths(self, lmax_out: int, even_only: bool) -> Paths:
        """Paths from the degrees of these shapes."""
        return Paths(math.isqrt(self.value.shape[1]) - 1, self.radial_gain.shape[1] - 1, lmax_out, even_only)


def neighbor_tensor_product(
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> torch.Tensor:
    """The operator's formula, differentiable by PyTorch itself. Returns `[N, rows, C]`."""
    o = Operands(attention, radial, radial_gain, value, harmonics)
    heads, channels = attention.shape[1], value.shape[2]
    weight = attention[:, :, None] * torch.einsum("en,kln->ekl", radial, radial_gain)
    weighted = _spread(weight) * harmonics[:, None, :]
    sent = value[index[1]].unflatten(2, (heads, channels // heads))
    tiles = torch.einsum("eakc,ekb->eabkc", sent, weighted).flatten(3)
    sums = value.new_zeros(len(value), *tiles.shape[1:]).index_add(0, index[0], tiles)
    return torch.einsum("nabc,rab->nrc", sums, coupling(o.paths(lmax_out, even_only)).to(value))


def forward(
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> torch.Tensor:
    """`[N, rows, C]`."""
    o = Operands(attention, radial, radial_gain, value, harmonics)
    return _couple(_tiles(o.value, _weighted_harmonics(o), index), o.paths(lmax_out, even_only))


def backward(
    grad: torch.Tensor,
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[torch.Tensor, ...]:
    """Gradients by the five operands."""
    o = Operands(attention, radial, radial_gain, value, harmonics)
    grad_tiles = of_receivers(_couple_transposed(grad, o.paths(lmax_out, even_only)), index)
    by_weighted = _edge_dot(grad_tiles, o.value, attention.shape[1], index)
    by_value = _to_senders(grad_tiles, _weighted_harmonics(o), index)
    gain = _gain(radial, radial_gain)
    by_weight = _sum_orders(by_weighted * harmonics[:, None, :])
    by_gain = by_weight * attention[:, :, None]
    by_harmonics = (by_weighted * _spread(attention[:, :, None] * gain)).sum(1)
    by_radial, by_radial_gain = _gain_backward(by_gain, radial, radial_gain)
    return (by_weight * gain).sum(2), by_radial, by_radial_gain, by_value, by_harmonics


def double_backward(
    grad_attention: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_radial_gain: torch.Tensor,
    grad_value: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad: torch.Tensor,
    attention: torch.Tensor,
    radial: torch.Tensor,
    radial_gain: torch.Tensor,
    value: torch.Tensor,
    harmonics: torch.Tensor,
    index: list[torch.Tensor],
    lmax_out: int,
    even_only: bool,
) -> tuple[torch.Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad and the five operands."""
    o = Operands(attention, radial, radial_gain, value, harmonics)
    paths, heads = o.paths(lmax_out, even_only), attention.shape[1]
    gain, gain_step = (
        _gain(radial, radial_gain),
        _gain(grad_radial, radial_gain) + _gain(radial, grad_radial_gain),
    )
    weight = attention[:, :, None] * gain
    weight_step = grad_attention[:, :, None] * gain + attention[:, :, None] * gain_step
    weighted = _spread(weight) * harmonics[:, None, :]
    weighted_step = _spread(weight_step) * harmonics[:, None, :] + _spread(weight) * grad_harmonics[:, None, :]

    by_grad = _couple(_tiles(value, weighted_step, index) + _tiles(grad_value, weighted, index), paths)
    grad_tiles = of_receivers(_couple_transposed(grad, paths), index)
    by_value = _to_senders(grad_tiles, weighted_step, index)
    by_weighted_step = _edge_dot(grad_tiles, value, heads, index)
    by_weighted = _edge_dot(grad_tiles, grad_value, heads, index)

    by_harmonics = (by_weighted_step * _spread(weight_step) + by_weighted * _spread(weight)).sum(1)
    by_weight_step = _sum_orders(by_weighted_step * harmonics[:, None, :])
    by_weight = _sum_orders(by_weighted_step * grad_harmonics[:, None, :] + by_weighted * harmonics[:, None, :])
    by_attention = (by_weight_step * gain_step + by_weight * gain).sum(2)
    by_gain = by_weight_step * grad_attention[:, :, None] + by_weight * attention[:, :, None]
    by_gain_step = by_weight_step * attention[:, :, None]
    direct = _gain_backward(by_gain, radial, radial_gain)
    crossed = _gain_backward(by_gain_step, grad_radial, grad_radial_gain)
    return by_grad, by_attention, direct[0] + crossed[0], direct[1] + crossed[1], by_value, by_harmonics


def _tiles(value: torch.Tensor, weighted: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """A_i = Σ_j v_j ⊗ B_ij: `[N, M1, M2, C]`."""
    spread = _to_channels(weighted, value.shape[2])
    return sum_to_receivers(of_senders(value, index)[:, :, None, :] * spread[:, None], index)


def _to_senders(grad_tiles: torch.Tensor, weighted: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Σ over receivers of grad_A_i · B_ij: `[E, M1, M2, C]` -> `[N, M1, C]`."""
    spread = _to_channels(weighted, grad_tiles.shape[3])
    return sum_to_senders((grad_tiles * spread[:, None]).sum(2), index)


def _edge_dot(grad_tiles: torch.Tensor, value: torch.Tensor, heads: int, index: list[torch.Tensor]) -> torch.Tensor:
    """grad_A_i · v_j over M1 and the channels of a head: `[E, M1, M2, C]` -> `[E, K, M2]`."""
    per_channel = (grad_tiles * of_senders(value, index)[:, :, None, :]).sum(1)
    return per_channel.unflatten(2, (heads, -1)).sum(3).transpose(1, 2).contiguous()


def _to_channels(weighted: torch.Tensor, channels: int) -> torch.Tensor:
    """`[E, K, M2]` -> `[E, M2, C]`."""
    return weighted.transpose(1, 2).repeat_interleave(channels // weighted.shape[1], 2).contiguous()


def _couple(tiles: torch.Tensor, paths: Paths) -> torch.Tensor:
    """`[N, M1, M2, C]` -> `[N, rows, C]`."""
    return _gather_product(tiles.flatten(1, 2), *gather_table(paths, False, tiles.dtype, tiles.device))


def _couple_transposed(z: torch.Tensor, paths: Paths) -> torch.Tensor:
    """`[N, rows, C]` -> `[N, M1, M2, C]`."""
    pairs = _gather_product(z, *gather_table(paths, True, z.dtype, z.device))
    return pairs.unflatten(1, ((paths.lmax_in + 1) ** 2, (paths.lmax_harmonics + 1) ** 2))


def _gather_product(x: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Σ_w value[o, w] x[:, index[o, w]]: `[N, in, C]` -> `[N, out, C]`."""
    total = x.index_select(1, index[:, 0]).mul_(value[:, 0, None])
    for w in range(1, index.shape[1]):
        total.addcmul_(x.index_select(1, index[:, w]), value[:, w, None])
    return total


def _weighted_harmonics(o: Operands) -> torch.Tensor:
    """B `[E, K, M2]`."""
    return _spread(o.attention[:, :, None] * _gain(o.radial, o.radial_gain)) * o.harmonics[:, None, :]


def _gain(radial: torch.Tensor, radial_gain: torch.Tensor) -> torch.Tensor:
    """Σ_n R_n W_kln: `[E, K, L2+1]`."""
    return (radial @ radial_gain.flatten(0, 1).T).unflatten(1, radial_gain.shape[:2])


def _gain_backward(
    by_gain: torch.Tensor, radial: torch.Tensor, radial_gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    flat = by_gain.flatten(1)
    return flat @ radial_gain.flatten(0, 1), (flat.T @ radial).view_as(radial_gain)


def _spread(per_degree: torch.Tensor) -> torch.Tensor:
    """Repeat each degree over its orders: `[..., L+1]` -> `[..., (L+1)²]`."""
    degree = [l for l in range(per_degree.shape[-1]) for _ in range(2 * l + 1)]
    return per_degree.index_select(-1, torch.tensor(degree, device=per_degree.device))


def _sum_orders(per_order: torch.Tensor) -> torch.Tensor:
    """Sum the orders of each degree: `[..., (L+1)²]` -> `[..., L+1]`."""
    sizes = [2 * l + 1 for l in range(math.isqrt(per_order.shape[-1]))]
    return torch.stack([block.sum(-1) for block in per_order.split(sizes, -1)], -1)
