"""Cuequivariance's tensor products and harmonics: by einsum on a CPU ("naive"), or by another of its methods.

A product takes features in its own layout, `ir_mul`, and its paths stand in the order of their results' irreps; its
weights and normalization are e3nn's otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from sdas_kernels import nn
from sdas_kernels.irreps import Irreps, to_layout

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def available() -> bool:
    """Whether it is installed."""
    return find_spec("cuequivariance_torch") is not None


def has_counterpart(module: nn.TensorProduct) -> bool:
    """Whether it has the same product: fully connected, or channelwise with the results of all paths kept apart."""
    return isinstance(module, nn.FullyConnectedTensorProduct) or len(module.instructions) == len(module.irreps_out)


def product(module: nn.TensorProduct, dtype: torch.dtype, method: str = "naive", device: Any = "cpu") -> Product:
    """The counterpart of a product; of a channelwise one that adds up its paths, one that keeps them apart."""
    import cuequivariance as cue
    import cuequivariance_torch as cuet

    x, y, z = (cue.Irreps("O3", str(i)) for i in (module.irreps_in1, module.irreps_in2, module.irreps_out))
    options = {"layout": cue.ir_mul, "method": method, "dtype": dtype, "device": device}
    if isinstance(module, nn.FullyConnectedTensorProduct):
        connected = cuet.FullyConnectedTensorProduct(x, y, z, shared_weights=True, internal_weights=False, **options)
        return lambda x, y, weight: connected(x, y, weight[None])
    channelwise = cuet.ChannelWiseTensorProduct(x, y, [ir for _, ir in z], shared_weights=False, **options)
    if channelwise.weight_numel != module.weight_numel:
        raise ValueError(f"its product has {channelwise.weight_numel} weights per sample, ours {module.weight_numel}")
    return lambda x, y, weight: channelwise(x, y, weight)


def as_ours(module: nn.TensorProduct, theirs: Product) -> Product:
    """That counterpart of features and weights in our order, for a comparison of numbers."""
    entries = list(module.irreps_out)
    order = sorted(range(len(entries)), key=lambda n: entries[n].ir.l)
    place = sorted(range(len(entries)), key=order.__getitem__)  # of each of our paths among theirs
    irreps = Irreps([entries[n] for n in order])

    def run(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if weight.ndim == 2:  # channels of each path
            pieces = weight.split([entry.mul for entry in entries], 1)
            weight = torch.cat([pieces[n] for n in order], 1)
        z = theirs(to_layout(x, module.irreps_in1, "mul_ir", "ir_mul"), y, weight)
        z = to_layout(z, irreps, "ir_mul", "mul_ir")
        results = [z[:, where] for where in irreps.slices()]
        return torch.cat([results[n] for n in place], 1)

    return run


@cache
def harmonics(
    lmax: int, dtype: torch.dtype, method: str = "naive", device: Any = "cpu"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of every degree, of normalized vectors, component normalization. Made once: it takes it long."""
    import cuequivariance_torch as cuet

    options = {"normalize": True, "method": method, "math_dtype": dtype, "device": device}
    return cuet.SphericalHarmonics(list(range(lmax + 1)), **options)
