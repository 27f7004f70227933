"""Other libraries' kernels behind the same calls. Each adapter raises `ImportError` where its library is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gpu.measure import DRY
from peers import cuequivariance_products

import sdas_kernels as sk
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.edge_softmax import reference as softmax
from sdas_kernels.paths import Paths


def cuequivariance() -> tuple[Any, Any, str]:
    """Its two packages, and the method to ask for: its CUDA kernels, without which it is no peer; naive when dry."""
    import cuequivariance
    import cuequivariance_torch

    if DRY:
        return cuequivariance, cuequivariance_torch, "naive"
    import cuequivariance_ops_torch  # noqa: F401

    return cuequivariance, cuequivariance_torch, "uniform_1d"


def cuequivariance_attention(channels: int, heads: int, lmax: int, edges: EdgeIndex, device: Any) -> Callable[..., Any]:
    """`sdas_kernels.neighbor_attention` by a softmax in PyTorch and cuequivariance's fused gather, product and scatter.

    Takes query, key, sink, value, radial_gain, harmonics, radial, envelope and gives `[N, rows·C]`, rows ordered by
    l3, path, m3: what a user of that library would write.
    """
    cue, cuet, method = cuequivariance()
    natural = [cue.O3(l, (-1) ** l) for l in range(lmax + 1)]
    features = cue.Irreps("O3", [(channels, ir) for ir in natural])
    harmonic = cue.Irreps("O3", [(1, ir) for ir in natural])
    product = cue.descriptors.channelwise_tensor_product(features, harmonic, natural)
    run = cuet.SegmentedPolynomial(product.polynomial, method=method).to(device)
    if run.method != method:
        raise ImportError(f"cuequivariance fell back to its {run.method} method")
    degrees = torch.tensor([l2 for _, l2, _ in Paths(lmax, lmax, lmax).all], device=device)
    index = edges.tensors()
    shape = torch.empty(edges.num_nodes, 1, device=device)

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        sink: torch.Tensor,
        value: torch.Tensor,
        radial_gain: torch.Tensor,
        harmonics: torch.Tensor,
        radial: torch.Tensor,
        envelope: torch.Tensor,
    ) -> torch.Tensor:
        alpha = softmax.edge_softmax(query, key, sink, harmonics, radial, envelope, index)
        gain = torch.einsum("en,kln->elk", radial, radial_gain)
        by_head = (alpha[:, None, :] * gain).index_select(1, degrees)
        weight = by_head.repeat_interleave(channels // heads, 2).flatten(1)
        (z,) = run(
            [weight, value.flatten(1), harmonics],
            input_indices={1: edges.senders},
            output_shapes={0: shape},
            output_indices={0: edges.receivers},
        )
        return z

    return attention


def as_rows(z: torch.Tensor, lmax: int, channels: int) -> torch.Tensor:
    """Its result in the order of ours: `[N, rows, C]`, rows ordered by l3, m3, path."""
    paths, blocks, start = Paths(lmax, lmax, lmax), [], 0
    for l3, count in enumerate(paths.counts):
        width = count * (2 * l3 + 1) * channels
        block = z[:, start : start + width].unflatten(1, (count, 2 * l3 + 1, channels))
        blocks.append(block.transpose(1, 2).flatten(1, 2))
        start += width
    return torch.cat(blocks, 1)


def cuequivariance_harmonics(lmax: int, dtype: torch.dtype, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of every degree, component normalization."""
    *_, method = cuequivariance()
    return cuequivariance_products.harmonics(lmax, dtype, method, device)


def e3nn_harmonics(lmax: int, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of every degree, component normalization."""
    from e3nn import o3

    return lambda vectors: o3.spherical_harmonics(list(range(lmax + 1)), vectors, True, "component")


def cuequivariance_product(module: sk.nn.TensorProduct, dtype: torch.dtype, device: Any) -> Callable[..., torch.Tensor]:
    """A product over the same irreps, in its own layout and order of paths, which it keeps apart."""
    *_, method = cuequivariance()
    return cuequivariance_products.product(module, dtype, method, device)


def openequivariance_product(module: sk.nn.TensorProduct, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """The same product with the same weights."""
    import openequivariance as oeq

    return oeq.TensorProduct(_openequivariance_problem(module, dtype), torch_op=True)


def openequivariance_convolution(
    module: sk.nn.TensorProductConv, dtype: torch.dtype, edges: EdgeIndex
) -> Callable[..., torch.Tensor]:
    """The same convolution with the same weights, summed by atomic additions."""
    import openequivariance as oeq

    run = oeq.TensorProductConv(_openequivariance_problem(module, dtype), torch_op=True, deterministic=False)
    return lambda x, y, weight: run(x, y, weight, edges.receivers, edges.senders)


def _openequivariance_problem(module: sk.nn.TensorProduct, dtype: torch.dtype) -> Any:
    import numpy as np
    import openequivariance as oeq

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    instructions = [(p.i_in1, p.i_in2, p.i_out, p.connection_mode, p.has_weight) for p in module.instructions]
    return oeq.TPProblem(
        *(oeq.Irreps(str(i)) for i in (module.irreps_in1, module.irreps_in2, module.irreps_out)),
        instructions,
        shared_weights=False,
        internal_weights=False,
        irrep_dtype=number,
        weight_dtype=number,
    )
