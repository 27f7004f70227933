"""FLOPs of the compiled kernels and of the linear algebra around them, from the shapes of the operands."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from sdas_kernels.paths import Paths, coupling


class Sizes(NamedTuple):
    """What the counts depend on."""

    nodes: int
    edges: int
    heads: int
    channels: int
    degrees: int  # L2 + 1
    harmonics: int  # M2
    tile: int  # M1 · M2
    radial: int  # n
    couplings: int  # non-zero Clebsch–Gordan coefficients of all paths

    @classmethod
    def of(cls, radial: Tensor, radial_gain: Tensor, value: Tensor, lmax_out: int, even_only: bool) -> Sizes:
        """From the operands."""
        heads, degrees, n = radial_gain.shape
        nodes, m1, channels = value.shape
        paths = Paths(math.isqrt(m1) - 1, degrees - 1, lmax_out, even_only)
        m2 = degrees * degrees
        return cls(nodes, radial.shape[0], heads, channels, degrees, m2, m1 * m2, n, _couplings(paths))

    @property
    def pairs(self) -> int:
        """Numbers in `[E, K]`."""
        return self.edges * self.heads

    @property
    def numbers(self) -> int:
        """Numbers in `[E, L2+1, K]`."""
        return self.edges * self.degrees * self.heads


def forward(
    attention: Tensor,
    radial: Tensor,
    radial_gain: Tensor,
    value: Tensor,
    harmonics: Tensor,
    index: Any,
    lmax_out: int,
    even_only: bool,
) -> int:
    """Weights, tiles, coupling."""
    s = Sizes.of(radial, radial_gain, value, lmax_out, even_only)
    per_edge = s.channels * (s.harmonics + 2 * s.tile)
    return weights(s) + s.edges * per_edge + couple(s)


def backward(grad: Tensor, *operands: Any) -> int:
    """Weights, sum over receivers, dot per edge, and the gradients of the weights' factors."""
    _, radial, radial_gain, value, _, _, lmax_out, even_only = operands
    s = Sizes.of(radial, radial_gain, value, lmax_out, even_only)
    to_senders = s.channels * (s.harmonics + 3 * s.couplings)
    edge_dot = s.channels * (2 * s.tile + 4 * s.harmonics + s.harmonics) + _head_sums(s)
    factors = s.numbers * (2 + 1 + 4 * s.radial)
    return weights(s) + s.edges * (to_senders + edge_dot) + couple(s) + factors


def double_backward(*arguments: Any) -> int:
    """Weights and their steps, and the three contractions along the steps."""
    _, radial, radial_gain, value, _, _, lmax_out, even_only = arguments[6:]
    s = Sizes.of(radial, radial_gain, value, lmax_out, even_only)
    tiles = s.channels * (4 * s.harmonics + 4 * s.tile)
    to_senders = s.channels * (3 * s.harmonics + 3 * s.couplings)
    edge_dot = s.channels * (4 * s.tile + 10 * s.harmonics + s.harmonics) + 2 * _head_sums(s)
    factors = s.numbers * (4 + 3 + 1 + 8 * s.radial) + s.edges * s.radial + s.heads * s.degrees * s.radial
    return weights(s) + weight_steps(s) + s.edges * (tiles + to_senders + edge_dot) + 2 * couple(s) + factors


@cache
def _couplings(paths: Paths) -> int:
    return int((coupling(paths) != 0).sum())


def weights(s: Sizes) -> int:
    """α · (R W)."""
    return s.numbers * (2 * s.radial + 1)


def weight_steps(s: Sizes) -> int:
    """α̇ · (R W) + α · (Ṙ W + R Ẇ)."""
    return s.numbers * (4 * s.radial + 1 + 3)


def couple(s: Sizes) -> int:
    """The coupling or its transpose, once per node."""
    return 2 * s.nodes * s.couplings * s.channels


def _head_sums(s: Sizes) -> int:
    return (s.channels - s.heads) * s.degrees
