"""Edge softmax in plain PyTorch: the truth for values, gradients and second derivatives.

With u = exp(e)/Z, α = f u, α_s = exp(s)/Z and D_i = Σ_j α g for an incoming gradient g, the first derivatives are

    ∂e = α (g - D)      ∂f = u (g - D)      ∂s = -α_s D

For tangents (ė, ḟ, ṡ), β = α ė + u ḟ and μ = α_s ṡ + Σ β, the weights move by α̇ = β - α μ, and T = Σ g α̇ has

    ∂e = (g - D) α̇ - α T      ∂f = u ((g - D)(ė - μ) - T)      ∂s = -α_s (D (ṡ - μ) + T)

The logit is bilinear in the query and [key, Y, R], so the rest are sums over edges.
"""

from __future__ import annotations

import torch

from sdas_kernels.segment import max_to_receivers, of_receivers, of_senders, sum_to_receivers, sum_to_senders


def edge_softmax(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> torch.Tensor:
    """The operator's formula, differentiable by PyTorch itself. Returns `[E, K]`."""
    receivers, senders = index[0], index[1]
    where = torch.cat([harmonics, radial], 1)
    target = torch.cat([key[senders], where[:, None].expand(-1, key.shape[1], -1)], 2)
    logit = (query[receivers] * target).sum(2)
    top = _finite(torch.maximum(max_to_receivers(logit.detach(), index), sink.detach()))
    weight = envelope[:, None] * torch.exp(logit - top[receivers])
    total = torch.zeros_like(sink).index_add(0, receivers, weight) + torch.exp(sink - top)
    return weight / total[receivers]


def forward(
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> torch.Tensor:
    """`[E, K]`."""
    return _normalized(_logits(query, key, harmonics, radial, index), sink, index, envelope)[0] * envelope[:, None]


def backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Gradients by query, key, sink, harmonics, radial, envelope."""
    u, sink_weight = _normalized(_logits(query, key, harmonics, radial, index), sink, index, envelope)
    alpha = u * envelope[:, None]
    mean = sum_to_receivers(alpha * grad, index)
    excess = grad - of_receivers(mean, index)
    by_query, by_key, by_harmonics, by_radial = _logit_backward(alpha * excess, query, key, harmonics, radial, index)
    return by_query, by_key, -sink_weight * mean, by_harmonics, by_radial, (u * excess).sum(1)


def double_backward(
    grad_query: torch.Tensor,
    grad_key: torch.Tensor,
    grad_sink: torch.Tensor,
    grad_harmonics: torch.Tensor,
    grad_radial: torch.Tensor,
    grad_envelope: torch.Tensor,
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    sink: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    envelope: torch.Tensor,
    index: list[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad, query, key, sink, harmonics, radial, envelope."""
    u, sink_weight = _normalized(_logits(query, key, harmonics, radial, index), sink, index, envelope)
    alpha = u * envelope[:, None]
    logit_step = _logits(grad_query, key, harmonics, radial, index)
    logit_step = logit_step + _logits(query, grad_key, grad_harmonics, grad_radial, index)
    unscaled = alpha * logit_step + u * grad_envelope[:, None]
    drift = sink_weight * grad_sink + sum_to_receivers(unscaled, index)
    step = unscaled - alpha * of_receivers(drift, index)

    mean = sum_to_receivers(alpha * grad, index)
    total = sum_to_receivers(grad * step, index)
    excess = grad - of_receivers(mean, index)
    by_logit = excess * step - alpha * of_receivers(total, index)
    by_envelope = (u * (excess * (logit_step - of_receivers(drift, index)) - of_receivers(total, index))).sum(1)
    by_sink = -sink_weight * (mean * (grad_sink - drift) + total)

    direct = _logit_backward(by_logit, query, key, harmonics, radial, index)
    crossed = _logit_backward(alpha * excess, grad_query, grad_key, grad_harmonics, grad_radial, index)
    by_query, by_key, by_harmonics, by_radial = (a + b for a, b in zip(direct, crossed, strict=True))
    return step, by_query, by_key, by_sink, by_harmonics, by_radial, by_envelope


def _logits(
    query: torch.Tensor, key: torch.Tensor, harmonics: torch.Tensor, radial: torch.Tensor, index: list[torch.Tensor]
) -> torch.Tensor:
    """e `[E, K]`."""
    seen, place = of_receivers(query, index).split([key.shape[2], harmonics.shape[1] + radial.shape[1]], 2)
    where = torch.cat([harmonics, radial], 1)
    return (seen * of_senders(key, index)).sum(2) + torch.bmm(place, where[:, :, None]).squeeze(2)


def _logit_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    harmonics: torch.Tensor,
    radial: torch.Tensor,
    index: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of Σ grad·e by query, key, harmonics, radial, for grad `[E, K]`."""
    channels, num_harmonics = key.shape[2], harmonics.shape[1]
    where = torch.cat([harmonics, radial], 1)
    of_edge = of_receivers(query, index)
    target = torch.cat([of_senders(key, index), where[:, None, :].expand(-1, key.shape[1], -1)], 2)
    by_query = sum_to_receivers(grad[:, :, None] * target, index)
    by_key = sum_to_senders(grad[:, :, None] * of_edge[:, :, :channels], index)
    by_where = torch.bmm(grad[:, None, :], of_edge[:, :, channels:]).squeeze(1)
    by_harmonics, by_radial = (
        part.clone(memory_format=torch.contiguous_format)
        for part in by_where.split([num_harmonics, radial.shape[1]], 1)
    )  # an operator's results may not share memory
    return by_query, by_key, by_harmonics, by_radial


def _normalized(
    logit: torch.Tensor, sink: torch.Tensor, index: list[torch.Tensor], envelope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """u = exp(e)/Z `[E, K]` and exp(s)/Z `[N, K]`."""
    top = _finite(torch.maximum(max_to_receivers(logit, index), sink))
    raw, raw_sink = torch.exp(logit - of_receivers(top, index)), torch.exp(sink - top)
    total = sum_to_receivers(raw * envelope[:, None], index) + raw_sink
    total = torch.where(total == 0, 1.0, total)
    return raw / of_receivers(total, index), raw_sink / total


def _finite(top: torch.Tensor) -> torch.Tensor:
    """Zero in place of the -inf of a node with neither neighbors nor sink."""
    return torch.where(torch.isinf(top), 0.0, top)
