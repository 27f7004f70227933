"""The network by the library's other operators and plain PyTorch: what the fused kernels are held to.

PyTorch differentiates it. In float64, under `use_backend("reference")`, it is the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from sdas_kernels.fused_sdas.weights import EPSILON, EXPONENT, LayerWeights, Sizes, layers_of
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.edge_geometry import edge_geometry
from sdas_kernels.ops.neighbor_attention import neighbor_attention
from sdas_kernels.paths import coupling
from sdas_kernels.segment import Segments, gather
from sdas_kernels.transforms import transformed, value_and_gradients


def network(
    vectors: Tensor, kinds: Tensor, weights: Sequence[Tensor], edges: EdgeIndex, cutoff: float, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """`[E, 3]`, `[N]` -> energy `[N]`, gradient `[E, 3]`; differentiable where gradients are enabled."""
    again = torch.is_grad_enabled() or transformed()
    with torch.enable_grad():
        energy, (gradient,) = value_and_gradients(
            lambda r: energies(r, kinds, weights, edges, cutoff, sizes), (vectors,), create_graph=again
        )
    return (energy if again else energy.detach()), gradient


def forward(
    vectors: Tensor,
    kinds: Tensor,
    weights: Sequence[Tensor],
    index: Sequence[Tensor],
    cutoff: float,
    even_only: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy `[N]`, gradient `[E, 3]`, and no state."""
    with _recording(), torch.no_grad():
        found = network(vectors, kinds, weights, EdgeIndex(*index), cutoff, Sizes.of(weights, even_only))
    return *found, vectors.new_empty(0)


def backward(
    by_energy: Tensor | None,
    by_gradient: Tensor | None,
    state: Tensor,
    vectors: Tensor,
    kinds: Tensor,
    weights: Sequence[Tensor],
    index: Sequence[Tensor],
    cutoff: float,
    even_only: bool,
    for_vectors: bool,
    for_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of <by_energy, energy> + <by_gradient, gradient>, by vectors `[E, 3]` and by all weights, flat.

    One that is not wanted has no rows.
    """
    with _recording(), torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (vectors, *weights)]
        found = network(leaves[0], kinds, leaves[1:], EdgeIndex(*index), cutoff, Sizes.of(weights, even_only))
        given = zip(found, (by_energy, by_gradient), strict=True)
        cotangents = [torch.zeros_like(out) if by is None else by for out, by in given]
        wanted = leaves[:1] * for_vectors + leaves[1:] * for_weights
        grads = list(torch.autograd.grad(found, wanted, cotangents, materialize_grads=True, allow_unused=True))
    by_vectors = grads.pop(0) if for_vectors else vectors.new_empty(0, 3)
    return by_vectors, torch.cat([g.flatten() for g in grads]) if for_weights else vectors.new_empty(0)


@contextmanager
def _recording() -> Iterator[None]:
    """Lets PyTorch differentiate inside the body of an operator, which runs below autograd."""
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradFunctionality, keys.AutogradOther, keys.AutogradNestedTensor):
        excluded = excluded.remove(key)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded):  # type: ignore[attr-defined]
        yield


def energies(
    vectors: Tensor, kinds: Tensor, weights: Sequence[Tensor], edges: EdgeIndex, cutoff: float, sizes: Sizes
) -> Tensor:
    """Of every atom `[N]`."""
    geometry = edge_geometry(vectors, sizes.lmax, sizes.radials, cutoff, EXPONENT)
    rows = (sizes.lmax + 1) ** 2
    scalars = gather(weights[0], Segments(kinds, ascending=False))
    x = torch.nn.functional.pad(scalars[:, None, :], (0, 0, 0, rows - 1))
    energy = vectors.new_zeros(len(kinds))
    for k, w in enumerate(layers_of(weights)):
        x = x + _attend(_normalize(x, sizes), w, geometry, edges, k, sizes)
        if w.product:
            x = x + _product(_normalize(x, sizes), w, sizes)
        x = x + _update(_normalize(x, sizes), w, sizes)
        energy = energy + linear(silu(linear(x[:, 0], w.readout, w.readout_bias)), w.energy, w.energy_bias)[:, 0]
    return energy


def _normalize(x: Tensor, sizes: Sizes) -> Tensor:
    """x / √( mean_l mean_{m,c} x_ilmc² + ε )."""
    means = [block.square().mean((1, 2), keepdim=True) for block in _degrees(x, sizes)]
    return x * torch.rsqrt(torch.stack(means).mean(0) + EPSILON)


def _degrees(x: Tensor, sizes: Sizes) -> Sequence[Tensor]:
    """`[N, M, C]` -> of each degree `[N, 2l+1, C]`."""
    return x.split([2 * l + 1 for l in range(sizes.lmax + 1)], 1)


def _by_degree(x: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
    """A matrix for each degree."""
    return torch.cat([block @ weight[l] for l, block in enumerate(_degrees(x, sizes))], 1)


def _attend(
    y: Tensor, w: LayerWeights, geometry: tuple[Tensor, Tensor, Tensor], edges: EdgeIndex, layer: int, sizes: Sizes
) -> Tensor:
    K, D, n = sizes.heads, sizes.key_channels, sizes.radials
    query, key, radial, sink = linear(y[:, 0], w.logits, w.logits_bias).split([K * D, K * D, K * n, K], 1)
    direction = _by_degree(y, w.direction, sizes).transpose(1, 2)
    joined = [query.view(-1, K, D) / math.sqrt(D), direction, radial.view(-1, K, n)]
    value = y[:, :1] @ w.value[0] if layer == 0 else _by_degree(y, w.value, sizes)
    logits = (torch.cat(joined, 2), key.view(-1, K, D), sink)
    z = neighbor_attention(*logits, value, w.radial_gain, *geometry, edges, sizes.lmax, sizes.even_only)
    counts = sizes.paths(layer).counts
    blocks = z.split([(2 * l + 1) * count for l, count in enumerate(counts)], 1)
    mixed = [block.reshape(-1, len(m)) @ m for block, m in zip(blocks, w.mixing, strict=True)]
    return torch.cat([block.view(len(y), -1, y.shape[2]) for block in mixed], 1)


def _product(y: Tensor, w: LayerWeights, sizes: Sizes) -> Tensor:
    paths = sizes.square_paths
    z = torch.einsum("rab,nac,nbc->nrc", coupling(paths).to(y), y, y)
    blocks = [z[:, rows].reshape(-1, len(m)) @ m for rows, m in zip(paths.row_slices()[1:], w.product, strict=True)]
    return torch.cat([torch.zeros_like(y[:, :1]), *(block.view(len(y), -1, y.shape[2]) for block in blocks)], 1)


def _update(y: Tensor, w: LayerWeights, sizes: Sizes) -> Tensor:
    scalars, *others = _degrees(y, sizes)
    invariants = torch.cat([scalars, *(block.square().sum(1, keepdim=True) for block in others)], 1)
    f = linear(silu(linear(invariants.flatten(1), w.hidden, w.hidden_bias)), w.factors, w.factors_bias)
    f = f.view(invariants.shape)
    gated = [f[:, l : l + 1] * (block @ w.gate[l]) for l, block in enumerate(others, 1)]
    return torch.cat([f[:, :1], *gated], 1)
