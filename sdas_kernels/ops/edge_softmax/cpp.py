"""Edge softmax on the CPU by the compiled kernels of `csrc/ops/edge_softmax`, which want heads innermost."""

from __future__ import annotations

import torch
from torch import Tensor

from sdas_kernels import memory, native


def forward(
    query: Tensor, key: Tensor, sink: Tensor, harmonics: Tensor, radial: Tensor, envelope: Tensor, index: list[Tensor]
) -> Tensor:
    """`[E, K]`."""
    alpha = memory.empty((len(envelope), query.shape[1]), query)
    _run("forward", index, alpha=alpha, **_operands(query, key, sink, harmonics, radial, envelope))
    return alpha


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    sink: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    envelope: Tensor,
    index: list[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients by query, key, sink, harmonics, radial, envelope."""
    operands = _operands(query, key, sink, harmonics, radial, envelope)
    results = {f"by_{name}": memory.empty_like(tensor) for name, tensor in operands.items()}
    _run("backward", index, grad=grad, by_logit=memory.empty_like(grad), **operands, **results)
    return _gradients(results, harmonics.shape[1])


def double_backward(
    grad_query: Tensor,
    grad_key: Tensor,
    grad_sink: Tensor,
    grad_harmonics: Tensor,
    grad_radial: Tensor,
    grad_envelope: Tensor,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    sink: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    envelope: Tensor,
    index: list[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad, query, key, sink, harmonics, radial, envelope."""
    operands = _operands(query, key, sink, harmonics, radial, envelope)
    steps = _operands(grad_query, grad_key, grad_sink, grad_harmonics, grad_radial, grad_envelope)
    results = {f"by_{name}": memory.empty_like(tensor) for name, tensor in operands.items()}
    alpha_step, by_logit, by_logit_step = (memory.empty_like(grad) for _ in range(3))
    _run(
        "double_backward",
        index,
        grad=grad,
        alpha=alpha_step,
        by_logit=by_logit,
        by_logit_step=by_logit_step,
        **operands,
        **{f"{name}_step": tensor for name, tensor in steps.items()},
        **results,
    )
    return alpha_step, *_gradients(results, harmonics.shape[1])


def _operands(
    query: Tensor, key: Tensor, sink: Tensor, harmonics: Tensor, radial: Tensor, envelope: Tensor
) -> dict[str, Tensor]:
    """As the kernels want them: query `[N, D', K]`, key `[N, D, K]`, place `[E, M + n]`."""
    return {
        "query": query.transpose(1, 2).contiguous(),
        "key": key.transpose(1, 2).contiguous(),
        "sink": sink,
        "place": torch.cat([harmonics, radial], 1),
        "envelope": envelope,
    }


def _gradients(results: dict[str, Tensor], num_harmonics: int) -> tuple[Tensor, ...]:
    by_place = results["by_place"]
    return (
        results["by_query"].transpose(1, 2).contiguous(),
        results["by_key"].transpose(1, 2).contiguous(),
        results["by_sink"],
        by_place[:, :num_harmonics].clone(),
        by_place[:, num_harmonics:].clone(),
        results["by_envelope"],
    )


def _run(kernel: str, index: list[Tensor], **tensors: Tensor) -> None:
    query, key, place = tensors["query"], tensors["key"], tensors["place"]
    run = getattr(native.extension(), f"edge_softmax_{kernel}_{str(query.dtype).removeprefix('torch.')}")
    names = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")
    sizes = {
        "nodes": len(query),
        "edges": len(place),
        "heads": query.shape[2],
        "key_channels": key.shape[1],
        "places": place.shape[1],
    }
    addresses = {name: tensor.data_ptr() for name, tensor in (dict(zip(names, index, strict=True)) | tensors).items()}
    run(sizes | addresses, torch.get_num_threads())
