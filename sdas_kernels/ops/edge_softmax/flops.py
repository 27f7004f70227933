"""FLOPs of the compiled kernels, from the shapes of the operands; an exponential counts one."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def forward(query: Tensor, key: Tensor, sink: Tensor, harmonics: Tensor, radial: Tensor, *_: Any) -> int:
    """Logit, exponential, sum, normalization."""
    pairs, channels, places = _sizes(query, key, harmonics, radial)
    return pairs * (_normalize(channels, places) + 1)


def backward(grad: Tensor, query: Tensor, key: Tensor, sink: Tensor, harmonics: Tensor, radial: Tensor, *_: Any) -> int:
    """The forward again, then what is summed over neighbors, over heads, and over receivers."""
    pairs, channels, places = _sizes(query, key, harmonics, radial)
    mean, slope, envelope = 4, 3, 2
    return pairs * (_normalize(channels, places) + mean + slope + envelope + _spread(channels, places) + places)


def double_backward(*arguments: Any) -> int:
    """The forward again, the logit's step, the weights' step, and both cotangents spread to every operand."""
    query, key, _, harmonics, radial = arguments[7:12]
    pairs, channels, places = _sizes(query, key, harmonics, radial)
    logit_step = 2 * _logit(channels, places) + 1
    weight_step = 4 + 1 + 4 + 3 + 2  # before the drift, drift, mean, without the drift, total
    cotangents = 1 + 2 + 4 + 5 + 1
    spread = 2 * _spread(channels, places) + places
    return pairs * (_normalize(channels, places) + logit_step + weight_step + cotangents + spread)


def _sizes(query: Tensor, key: Tensor, harmonics: Tensor, radial: Tensor) -> tuple[int, int, int]:
    """Edges times heads, key channels, harmonics and radial functions together."""
    return harmonics.shape[0] * query.shape[1], key.shape[2], harmonics.shape[1] + radial.shape[1]


def _logit(channels: int, places: int) -> int:
    return 2 * (channels + places)


def _normalize(channels: int, places: int) -> int:
    return _logit(channels, places) + 6  # maximum, difference, exponential, weighting, sum, division by the sum


def _spread(channels: int, places: int) -> int:
    """Multiply-adds by query and by place over receivers, by key over senders."""
    return 2 * channels + 4 * places + 2 * channels
