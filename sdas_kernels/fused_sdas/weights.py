"""The weights of the network in the order in which its operator takes them, and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdas_kernels.ops.checks import check_floating
from sdas_kernels.paths import Paths, SquarePaths

EXPONENT = 6  # of the radial basis's envelope
EPSILON = 1e-3  # of the normalizations


class LayerWeights(NamedTuple):
    """Of one layer. D key channels, n radial functions, K heads, R the width of the readout.

    logits `[(2 D + n + 1) K, C]` and its bias: query, key, radial query and sink, each of them head by head;
    direction `[L+1, C, K]`; value `[1 or L+1, C, C]`; radial_gain `[K, L+1, n]`; mixing: of each degree
    `[paths · C, C]`; product: of each degree from 1 on `[square paths · C, C]`, or none; hidden `[2C, (L+1) C]`;
    factors `[(L+1) C, 2C]`; gate `[L+1, C, C]`, the first unused;
    readout `[R, C]`; energy `[1, R]`.
    """

    logits: Tensor
    logits_bias: Tensor
    direction: Tensor
    value: Tensor
    radial_gain: Tensor
    mixing: tuple[Tensor, ...]
    product: tuple[Tensor, ...]
    hidden: Tensor
    hidden_bias: Tensor
    factors: Tensor
    factors_bias: Tensor
    gate: Tensor
    readout: Tensor
    readout_bias: Tensor
    energy: Tensor
    energy_bias: Tensor


_BEFORE_MIXING = LayerWeights._fields.index("mixing")
_AFTER_PRODUCT = len(LayerWeights._fields) - 1 - LayerWeights._fields.index("product")


class Sizes(NamedTuple):
    """What the shapes of the weights follow from."""

    lmax: int
    channels: int
    heads: int
    key_channels: int
    radials: int
    species: int
    readout: int
    layers: int
    even_only: bool
    product: bool = False

    @classmethod
    def of(cls, weights: Sequence[Tensor], even_only: bool) -> Sizes:
        """Of all weights; raises `ValueError` if those that have to tell are not shaped as they must be."""
        embedding, logits, radial_gain = weights[0], weights[1], weights[5]
        if embedding.ndim != 2 or logits.ndim != 2 or radial_gain.ndim != 3 or 0 in radial_gain.shape:
            raise ValueError(
                "network: embedding must be [species, C], logits [(2 D + n + 1) K, C] and radial_gain [K, L+1, n], got "
                f"{list(embedding.shape)}, {list(logits.shape)} and {list(radial_gain.shape)}"
            )
        heads, degrees, radials = radial_gain.shape
        product = _has_product(weights)
        per_layer = _count(degrees, product)
        key_channels = (logits.shape[0] // heads - radials - 1) // 2
        return cls(
            lmax=degrees - 1,
            channels=embedding.shape[1],
            heads=heads,
            key_channels=key_channels,
            radials=radials,
            species=embedding.shape[0],
            readout=weights[per_layer - 3].shape[0] if len(weights) > per_layer else 1,
            layers=(len(weights) - 1) // per_layer,
            even_only=even_only,
            product=product,
        )

    @property
    def square_paths(self) -> SquarePaths:
        """Those of the product at nodes; there are some only if there is one."""
        return SquarePaths.of(self.lmax if self.product else 0)

    def paths(self, layer: int) -> Paths:
        """Those of a layer; the values of the first are scalars."""
        return Paths(0 if layer == 0 else self.lmax, self.lmax, self.lmax, even_only=self.even_only)


def flat(embedding: Tensor, layers: Sequence[LayerWeights]) -> list[Tensor]:
    """All weights, one after the other."""
    return [embedding, *(w for layer in layers for w in (*layer[:5], *layer.mixing, *layer.product, *layer[7:]))]


def layers_of(weights: Sequence[Tensor]) -> list[LayerWeights]:
    """The layers out of all weights."""
    degrees = weights[5].shape[1]
    per_layer, found = _count(degrees, _has_product(weights)), []
    for first in range(1, len(weights), per_layer):
        w: list[Any] = list(weights[first : first + per_layer])
        mixing, product = w[_BEFORE_MIXING : _BEFORE_MIXING + degrees], w[_BEFORE_MIXING + degrees : -_AFTER_PRODUCT]
        found.append(LayerWeights._make([*w[:_BEFORE_MIXING], tuple(mixing), tuple(product), *w[-_AFTER_PRODUCT:]]))
    return found


def _count(degrees: int, product: bool) -> int:
    """How many weights a layer has."""
    return _BEFORE_MIXING + degrees + (degrees - 1) * product + _AFTER_PRODUCT


def _has_product(weights: Sequence[Tensor]) -> bool:
    """Whether behind `mixing` there is `product`, of C columns, and not `hidden`, which has those of every degree."""
    degrees, behind = weights[5].shape[1], weights[1 + _BEFORE_MIXING + weights[5].shape[1] :][:1]
    return degrees > 2 and all(w.ndim == 2 and w.shape[1] == weights[0].shape[1] for w in behind)


@cache
def shapes(sizes: Sizes) -> tuple[list[str], list[torch.Size]]:
    """Names and shapes of all weights."""
    named: dict[str, tuple[int, ...]] = {"embedding": (sizes.species, sizes.channels)}
    C, K, degrees, R = sizes.channels, sizes.heads, sizes.lmax + 1, sizes.readout
    logits = (2 * sizes.key_channels + sizes.radials + 1) * K
    for layer in range(sizes.layers):
        counts = sizes.paths(layer).counts
        of_layer: dict[str, tuple[int, ...]] = {
            "logits": (logits, C),
            "logits_bias": (logits,),
            "direction": (degrees, C, K),
            "value": (1 if layer == 0 else degrees, C, C),
            "radial_gain": (K, degrees, sizes.radials),
            **{f"mixing[{l}]": (counts[l] * C, C) for l in range(degrees)},
            **{f"product[{l}]": (count * C, C) for l, count in enumerate(sizes.square_paths.counts) if count},
            "hidden": (2 * C, degrees * C),
            "hidden_bias": (2 * C,),
            "factors": (degrees * C, 2 * C),
            "factors_bias": (degrees * C,),
            "gate": (degrees, C, C),
            "readout": (R, C),
            "readout_bias": (R,),
            "energy": (1, R),
            "energy_bias": (1,),
        }
        named |= {f"{name} of layer {layer}": shape for name, shape in of_layer.items()}
    return list(named), [torch.Size(shape) for shape in named.values()]


def check(op: str, weights: Sequence[Tensor], sizes: Sizes, like: Tensor) -> None:
    """Every weight has its shape, and the dtype and device of `like`; raises `ValueError` or `TypeError`."""
    names, wanted = shapes(sizes)
    if sizes.key_channels < 1 or sizes.layers < 1 or len(weights) != len(wanted) or sizes.channels % sizes.heads:
        raise ValueError(f"{op}: the weights' shapes fit no network; they would make one of {sizes}")
    if [w.shape for w in weights] != wanted:
        name, weight, shape = next(bad for bad in zip(names, weights, wanted, strict=True) if bad[1].shape != bad[2])
        raise ValueError(f"{op}: {name} must be {list(shape)}, got {list(weight.shape)}")
    place, dtype = like.get_device(), like.dtype
    if any(w.dtype is not dtype or w.get_device() != place for w in weights):
        check_floating(op, vectors=like, **dict(zip(names, weights, strict=True)))
