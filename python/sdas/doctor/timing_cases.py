"""One small, fixed call per operator, with which the doctor times it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import sdas_kernels as sk

SIDE, SPACING, CUTOFF = 4, 2.1, 4.0
CHANNELS, HEADS, KEY_CHANNELS, LMAX, RADIAL = 32, 32, 4, 2, 8
PRODUCTS = 500
ROWS = (LMAX + 1) ** 2


@dataclass(frozen=True)
class Call:
    """An operator and its differentiable operands: `function(*tensors)` runs it. sizes: in words.

    twice: whether its gradients can be differentiated.
    """

    function: Callable[..., torch.Tensor]
    tensors: list[torch.Tensor]
    sizes: str
    twice: bool = True


Case = Callable[[torch.device, torch.dtype], Call]


def _graph(device: torch.device, dtype: torch.dtype) -> sk.NeighborGraph:
    """A jittered cubic lattice, periodic."""
    sites = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3) * SPACING
    jitter = np.random.default_rng(0).normal(scale=0.15, size=sites.shape)
    cell = np.eye(3) * SIDE * SPACING
    return sk.NeighborGraph.build(sites + jitter, np.full(len(sites), 6), CUTOFF, cell, dtype=dtype, device=device)


def _random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def _edges(graph: sk.NeighborGraph) -> str:
    return f"{graph.num_atoms} atoms, {graph.num_edges} edges"


def _geometry(graph: sk.NeighborGraph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return sk.edge_geometry(graph.edge_vectors(), LMAX, RADIAL, CUTOFF)


def _edge_geometry(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)

    def joined(vectors: torch.Tensor) -> torch.Tensor:
        harmonics, radial, envelope = sk.edge_geometry(vectors, LMAX, RADIAL, CUTOFF)
        return torch.cat([harmonics, radial, envelope[:, None]], 1)

    sizes = f"{graph.num_edges} vectors, lmax {LMAX}, {RADIAL} functions"
    return Call(joined, [graph.edge_vectors()], sizes)


def _spherical_harmonics(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)
    sizes = f"{graph.num_edges} vectors, lmax {LMAX}"
    return Call(lambda r: sk.spherical_harmonics(r, LMAX), [graph.edge_vectors()], sizes)


def _radial_basis(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)
    lengths = graph.edge_vectors().norm(dim=1)
    sizes = f"{graph.num_edges} lengths, {RADIAL} functions"
    return Call(lambda d: sk.radial_basis(d, RADIAL, CUTOFF), [lengths], sizes)


def _edge_softmax(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)
    harmonics, radial, envelope = _geometry(graph)
    query = _random(device, dtype, graph.num_atoms, HEADS, KEY_CHANNELS + ROWS + RADIAL)
    key = _random(device, dtype, graph.num_atoms, HEADS, KEY_CHANNELS)
    sink = _random(device, dtype, graph.num_atoms, HEADS)
    tensors = [query, key, sink, harmonics, radial, envelope]
    return Call(
        lambda q, k, s, y, r, f: sk.edge_softmax(q, k, s, y, r, f, graph), tensors, f"{_edges(graph)}, {HEADS} heads"
    )


def _neighbor_tensor_product(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)
    harmonics, radial, _ = _geometry(graph)
    attention = _random(device, dtype, graph.num_edges, HEADS)
    gain = _random(device, dtype, HEADS, LMAX + 1, RADIAL)
    value = _random(device, dtype, graph.num_atoms, ROWS, CHANNELS)
    tensors = [attention, radial, gain, value, harmonics]
    sizes = f"{_edges(graph)}, {CHANNELS} channels, lmax {LMAX}"
    return Call(lambda a, r, g, v, y: sk.neighbor_tensor_product(a, r, g, v, y, graph, LMAX), tensors, sizes)


def _neighbor_attention(device: torch.device, dtype: torch.dtype) -> Call:
    graph = _graph(device, dtype)
    harmonics, radial, envelope = _geometry(graph)
    query = _random(device, dtype, graph.num_atoms, HEADS, KEY_CHANNELS + ROWS + RADIAL)
    key = _random(device, dtype, graph.num_atoms, HEADS, KEY_CHANNELS)
    sink = _random(device, dtype, graph.num_atoms, HEADS)
    gain = _random(device, dtype, HEADS, LMAX + 1, RADIAL)
    value = _random(device, dtype, graph.num_atoms, ROWS, CHANNELS)
    tensors = [query, key, sink, value, gain, harmonics, radial, envelope]
    sizes = f"{_edges(graph)}, {HEADS} heads, {CHANNELS} channels, lmax {LMAX}"
    return Call(
        lambda q, k, s, v, g, y, r, f: sk.neighbor_attention(q, k, s, v, g, y, r, f, graph, LMAX), tensors, sizes
    )


def _network(device: torch.device, dtype: torch.dtype) -> Call:
    """Its value is energies and forces together, so its backward is a second derivative."""
    graph, layers = _graph(device, dtype), 2
    model = sk.nn.SDAS([6], CHANNELS, HEADS, LMAX, layers, CUTOFF, RADIAL, KEY_CHANNELS).to(device, dtype).train()

    def joined(*weights: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(model, dict(zip(used, weights, strict=True)), (graph,))
        return torch.cat([out["energy"].to(dtype), out["forces"].flatten()])

    used = {n: _random(device, dtype, *w.shape) / w.shape[-1] ** 0.5 for n, w in model.named_parameters()}
    for weight in used.values():
        weight.requires_grad_()
    gradients = torch.autograd.grad(joined(*used.values()).sum(), list(used.values()), materialize_grads=True)
    used = {name: weight for (name, weight), g in zip(used.items(), gradients, strict=True) if g.any()}
    text = f"{_edges(graph)}, {CHANNELS} channels, lmax {LMAX}, {layers} layers"
    return Call(joined, list(used.values()), text, twice=False)


def _convolution_spec() -> sk.TensorProductSpec:
    """Features times harmonics, with a weight per path and channel."""
    degrees = [sk.Irrep(l, (-1) ** l) for l in range(LMAX + 1)]
    features = sk.Irreps([(CHANNELS, degree) for degree in degrees])
    harmonics = sk.Irreps([(1, degree) for degree in degrees])
    paths = [
        (i, j, k, "uvu", True, 1.0)
        for i, a in enumerate(degrees)
        for j, b in enumerate(degrees)
        for k, c in enumerate(degrees)
        if c in a * b
    ]
    return sk.TensorProductSpec.of(features, harmonics, features, paths)


def _tensor_product(device: torch.device, dtype: torch.dtype) -> Call:
    """A convolution's product as peers run it: features times harmonics with a weight per edge, path and channel."""
    spec = _convolution_spec()
    x = _random(device, dtype, PRODUCTS, spec.dims[0])
    y = _random(device, dtype, PRODUCTS, spec.dims[1])
    weight = _random(device, dtype, PRODUCTS, spec.weight_numel)
    sizes = f"{PRODUCTS} products, {CHANNELS} channels, lmax {LMAX}"
    return Call(lambda x, y, w: sk.tensor_product(x, y, w, spec), [x, y, weight], sizes)


def _tensor_product_conv(device: torch.device, dtype: torch.dtype) -> Call:
    graph, spec = _graph(device, dtype), _convolution_spec()
    harmonics, _, _ = _geometry(graph)
    x = _random(device, dtype, graph.num_atoms, spec.dims[0])
    weight = _random(device, dtype, graph.num_edges, spec.weight_numel)
    sizes = f"{_edges(graph)}, {CHANNELS} channels, lmax {LMAX}"
    return Call(lambda x, y, w: sk.tensor_product_conv(x, y, w, graph, spec), [x, harmonics, weight], sizes)


CASES: dict[str, Case] = {
    "edge_geometry": _edge_geometry,
    "edge_softmax": _edge_softmax,
    "neighbor_attention": _neighbor_attention,
    "neighbor_tensor_product": _neighbor_tensor_product,
    "network": _network,
    "radial_basis": _radial_basis,
    "spherical_harmonics": _spherical_harmonics,
    "tensor_product": _tensor_product,
    "tensor_product_conv": _tensor_product_conv,
}
"""By operator name; a test holds this complete."""
