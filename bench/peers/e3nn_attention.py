"""Neighbor attention out of e3nn's modules: a tensor product on every edge, weighted and summed by scatters.

What one writes without fused kernels: the formula of `sdas_kernels.neighbor_attention`, for the same layer and weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import torch
from e3nn import o3

from sdas_kernels.graph import EdgeIndex
from sdas_kernels.nn import geometry
from sdas_kernels.nn import neighbor_attention as layer
from sdas_kernels.ops.radial_basis import reference as radial_basis
from sdas_kernels.paths import Paths


@contextmanager
def unfused() -> Iterator[None]:
    """Layers take their attention and the geometry of their edges from here."""
    with (
        mock.patch.object(layer, "neighbor_attention", neighbor_attention),
        mock.patch.object(geometry, "edge_geometry", edge_geometry),
    ):
        yield


def edge_geometry(vectors: torch.Tensor, lmax: int, n: int, cutoff: float, p: int = 6) -> tuple[torch.Tensor, ...]:
    """Harmonics `[E, (lmax+1)²]` by e3nn; radial functions `[E, n]` and envelope `[E]` in plain PyTorch."""
    harmonics = o3.spherical_harmonics(list(range(lmax + 1)), vectors, True, "component")
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    return harmonics, radial_basis.radial_basis(lengths, n, cutoff, p), radial_basis.envelope(lengths, cutoff, p)


def neighbor_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    value: torch.Tensor,
    radial_gain: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    edges: EdgeIndex,
    lmax_out: int,
    even_only: bool = True,
    path_weight: None = None,
) -> torch.Tensor:
    """Arguments and result `[N, rows, C]` of `sdas_kernels.neighbor_attention`."""
    nodes, channels, heads = len(value), value.shape[2], key.shape[1]
    paths = Paths(math.isqrt(value.shape[1]) - 1, radial_gain.shape[1] - 1, lmax_out, even_only)
    alpha = scatter_softmax(query, key, sink, torch.cat([harmonics, radial], 1), envelope, edges)
    gain = torch.einsum("en,kln->ekl", radial, radial_gain)
    per_path = (alpha[:, :, None] * gain)[:, :, [l2 for _, l2, _ in paths.all]]
    weight = per_path.transpose(1, 2).repeat_interleave(channels // heads, 2).flatten(1)
    degrees = [value[:, l * l : (l + 1) ** 2].transpose(1, 2).flatten(1) for l in range(paths.lmax_in + 1)]
    sent = torch.cat(degrees, 1)[edges.senders]
    messages = tensor_product(paths, channels)(sent, harmonics, weight)
    z = messages.new_zeros(nodes, messages.shape[1]).index_add(0, edges.receivers, messages)
    return _rows(z, paths, channels)


def scatter_softmax(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    where: torch.Tensor,
    envelope: torch.Tensor,
    edges: EdgeIndex,
) -> torch.Tensor:
    """Attention weights `[E, K]` by gathers, a maximum and a sum over the edges of each receiver."""
    target = torch.cat([key[edges.senders], where[:, None].expand(-1, key.shape[1], -1)], 2)
    logit = (query[edges.receivers] * target).sum(2)
    index = edges.receivers[:, None].expand_as(logit)
    top = sink.detach().scatter_reduce(0, index, logit.detach(), "amax")
    weight = envelope[:, None] * torch.exp(logit - top[edges.receivers])
    total = torch.exp(sink - top).index_add(0, edges.receivers, weight)
    return weight / total[edges.receivers]


@cache
def tensor_product(paths: Paths, channels: int) -> o3.TensorProduct:
    """Channels times harmonics, every path with a result and weights of its own."""
    natural = [o3.Irrep(l, (-1) ** l) for l in range(max(paths.lmax_in, paths.lmax_harmonics, paths.lmax_out) + 1)]
    return o3.TensorProduct(
        [(channels, natural[l]) for l in range(paths.lmax_in + 1)],
        [(1, natural[l]) for l in range(paths.lmax_harmonics + 1)],
        [(channels, natural[l3]) for _, _, l3 in paths.all],
        [(l1, l2, k, "uvu", True) for k, (l1, l2, _) in enumerate(paths.all)],
        irrep_normalization="component",
        path_normalization="none",
        shared_weights=False,
        internal_weights=False,
    )


def _rows(z: torch.Tensor, paths: Paths, channels: int) -> torch.Tensor:
    """From path by path, each [channel, m3], to rows ordered by l3, m3, path, channels innermost."""
    blocks, start = [], 0
    for l3, count in enumerate(paths.counts):
        width = count * channels * (2 * l3 + 1)
        block = z[:, start : start + width].unflatten(1, (count, channels, 2 * l3 + 1))
        blocks.append(block.permute(0, 3, 1, 2).flatten(1, 2))
        start += width
    return torch.cat(blocks, 1)
