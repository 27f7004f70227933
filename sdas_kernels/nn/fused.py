"""Which SDAS models one kernel can run whole, and how they are given to it.

Those are models of the default layer with all its parts, on a CPU, whose modules are what `SDAS` made: one that was
swapped, hooked or parametrized must run as it is, so then the model runs module by module. So does one of a subclass
that computes energies in a way of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn

from sdas_kernels.fused_sdas import LayerWeights, runs_fused
from sdas_kernels.fused_sdas.weights import EPSILON
from sdas_kernels.nn.electronic_state import ElectronicEmbedding
from sdas_kernels.nn.inner_cutoff import InnerCutoff
from sdas_kernels.nn.layer import EquivariantRMSNorm, NodeProduct, NodeUpdate, SDASLayer
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention
from sdas_kernels.nn.repulsion import Repulsion

_PLAIN = {
    nn.Embedding,
    nn.Linear,
    nn.ModuleList,
    nn.ParameterList,
    nn.Sequential,
    nn.SiLU,
    ElectronicEmbedding,
    EquivariantLinear,
    EquivariantRMSNorm,
    InnerCutoff,
    NeighborAttention,
    NodeProduct,
    NodeUpdate,
    Repulsion,
    SDASLayer,
}


# Methods of SDAS whose work the kernel does.
_DONE_BY_KERNEL = {"energies", "features", "scalars", "kinds", "sum_over_systems"}


@cache
def _overrides(kind: type) -> bool:
    """Whether models of this class compute their energies in a way of their own."""
    from sdas_kernels.nn.sdas import SDAS  # which imports this module

    return any(getattr(kind, name) is not getattr(SDAS, name) for name in _DONE_BY_KERNEL)


def layer_weights(model: Any) -> list[LayerWeights] | None:
    """The weights of an `SDAS` model's layers as the operator `network` takes them; None if it cannot run the model."""
    weight = model.embedding.weight
    if not runs_fused(weight.device.type, weight.dtype, model.lmax) or model.first_features is not None:
        return None
    if torch.compiler.is_compiling():
        return None
    if _overrides(model.__class__) or not vars(model).keys().isdisjoint(_DONE_BY_KERNEL):
        return None
    if not are_plain(model._modules.values()):
        return None
    pairs = zip(model.layers._modules.values(), model.readouts._modules.values(), strict=True)
    found = [_of_layer(layer, readout) for layer, readout in pairs]
    return None if None in found else found  # type: ignore[return-value]


def are_plain(modules: Iterable[nn.Module | None]) -> bool:
    """Whether they and all that they hold are as they were made; not by recursion, as a small molecule's time shows."""
    left = list(modules)
    while left:
        module = left.pop()
        if module is None:
            continue
        if type(module) not in _PLAIN or is_hooked(module):
            return False
        left += module.__dict__["_modules"].values()
    return True


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of it does other things than the `forward` of its class."""
    own = module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks) or "forward" in own


def _of_layer(layer: nn.Module, readout: nn.Module) -> LayerWeights | None:
    # By the tables of the modules: their attributes are found in several steps, which a small molecule's time shows.
    parts: dict[str, Any] = layer._modules
    norm, attention, update = parts["norm"], parts["attention"], parts.get("update")
    of, radial_gain = attention._modules, attention._parameters.get("radial_gain")
    if update is None or radial_gain is None or not attention.has_attention or 0 in attention.logit_sizes:
        return None
    if of.get("direction_query") is None or type(of["mixing"]) is not nn.ParameterList or norm.epsilon != EPSILON:
        return None
    product = parts.get("product")
    hidden, _, factors = update._modules["mlp"]._modules.values()
    modules: dict[str, Any] = readout._modules
    narrow, _, energy = modules.values()
    weights: list[Any] = [
        *of["logits"]._parameters.values(),
        of["direction_query"]._parameters["weight"],
        of["value"]._parameters["weight"],
        radial_gain,
        tuple(of["mixing"]._parameters.values()),
        () if product is None else tuple(product._modules["mixing"]._parameters.values()),
        *hidden._parameters.values(),
        *factors._parameters.values(),
        update._modules["gated"]._parameters["weight"],
        *narrow._parameters.values(),
        *energy._parameters.values(),
    ]
    return LayerWeights._make(weights)
