"""Registration of the fused network with PyTorch: energies and their gradient, and the derivative of both.

A library of plain operators with one autograd function, since a call has many weights and a molecule's takes little
time. `state` is what the derivative needs of the forward; it is opaque, and empty where none is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdas_kernels.dispatch import kernels
from sdas_kernels.fused_sdas.weights import Sizes, shapes
from sdas_kernels.ops.ladder import no_third_derivative
from sdas_kernels.transforms import Gradients, Rule, batch, differentiate, keep, one_by_one, transformed

_library = torch.library.Library("sdas_kernels", "FRAGMENT")
_OPERANDS = "Tensor vectors, Tensor kinds, Tensor[] weights, Tensor[] index, float cutoff, bool even_only"
_library.define(f"network({_OPERANDS}, bool keep) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"network_backward(Tensor? by_energy, Tensor? by_gradient, Tensor state, {_OPERANDS}, bool for_vectors, "
    "bool for_weights) -> (Tensor, Tensor)"
)
_run = torch.ops.sdas_kernels.network.default
_run_backward = torch.ops.sdas_kernels.network_backward.default


def network(
    vectors: Tensor, kinds: Tensor, weights: list[Tensor], index: list[Tensor], cutoff: float, even_only: bool
) -> tuple[Tensor, Tensor]:
    """Energy `[N]` and gradient `[E, 3]`."""
    again = torch.is_grad_enabled() and (vectors.requires_grad or any(w.requires_grad for w in weights))
    energy, gradient, _ = _differentiable(vectors, kinds, weights, index, cutoff, even_only, again)
    return energy, gradient


def _forward(vectors: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = kernels("network", vectors).forward(vectors, *arguments)
    return found


def _backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = kernels("network", arguments[3]).backward(*arguments)
    return found


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, kinds: Tensor, index: list[Tensor], *rest: Any) -> tuple[Tensor, ...]:
        ctx.cutoff, ctx.even_only, *weights = rest
        ctx.set_materialize_grads(False)
        with torch._C._AutoDispatchBelowAutograd():
            energy, gradient, state = _run(vectors, kinds, weights, index, ctx.cutoff, ctx.even_only, True)
        ctx.mark_non_differentiable(state)
        ctx.save_for_backward(state, vectors, kinds, *index, *weights)
        return energy, gradient, state

    @staticmethod
    def backward(ctx: Any, by_energy: Tensor | None, by_gradient: Tensor | None, _: None) -> tuple[Any, ...]:
        state, vectors, kinds, *tensors = ctx.saved_tensors
        index, weights = tensors[:5], tensors[5:]
        needs, of_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[5:]
        by_vectors, by_weights = _run_backward(
            by_energy, by_gradient, state, vectors, kinds, weights, index, ctx.cutoff, ctx.even_only,
            needs, any(of_weights),
        )  # fmt: skip
        gradients = _apart(by_weights, weights, of_weights) if any(of_weights) else [None] * len(weights)
        return by_vectors if needs else None, None, None, None, None, *gradients


class _BackwardRule(Rule):
    """Linear in the two cotangents; there are no derivatives by anything else, where PyTorch would take zeros."""

    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        _, _, state, vectors, kinds, weights, index, *ctx.options = arguments
        ctx.weights = len(weights)
        keep(ctx, [state, vectors, kinds, *weights, *index])

    def backward(self, ctx: Any, *cotangents: Tensor | None) -> Gradients:
        raise no_third_derivative("network")

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Gradients:
        by_energy, by_gradient, *others = tangents
        if any(tangent is not None for tangent in others):
            raise no_third_derivative("network")
        state, vectors, kinds, *tensors = ctx.saved_tensors
        weights, index = tensors[: ctx.weights], tensors[ctx.weights :]
        found: tuple[Tensor, Tensor] = _run_backward(
            by_energy, by_gradient, state, vectors, kinds, weights, index, *ctx.options
        )
        return found


def _apart(flat: Tensor, weights: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    pieces = flat.split([w.numel() for w in weights])
    return [p.view(w.shape) if need else None for p, w, need in zip(pieces, weights, needs, strict=True)]


def _differentiable(
    vectors: Tensor,
    kinds: Tensor,
    weights: list[Tensor],
    index: list[Tensor],
    cutoff: float,
    even_only: bool,
    keep_state: bool,
) -> Any:
    if transformed():
        raise NotImplementedError(
            "network: torch.ops.sdas_kernels.network has no rules for torch.func and forward derivatives; the function "
            "sdas_kernels.fused_sdas.network, which checks its arguments, composes it of operators that have"
        )
    if keep_state:
        return _Network.apply(vectors, kinds, index, cutoff, even_only, *weights)
    with torch._C._AutoDispatchBelowAutograd():
        return _run(vectors, kinds, weights, index, cutoff, even_only, keep_state)


_library.impl("network", _forward, "CPU")
_library.impl("network_backward", _backward, "CPU")
_library.impl("network", _differentiable, "Autograd")
differentiate(_run_backward, _BackwardRule())
for _op in (_run, _run_backward):
    batch(_op, one_by_one)


@torch.library.register_fake("sdas_kernels::network", lib=_library)
def _(
    vectors: Tensor,
    kinds: Tensor,
    weights: list[Tensor],
    index: list[Tensor],
    cutoff: float,
    even_only: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from sdas_kernels.fused_sdas import cpp

    numbers = cpp.state_numbers(vectors, kinds, weights, cutoff, even_only) if keep else 0
    return vectors.new_empty(kinds.shape[0]), torch.empty_like(vectors), vectors.new_empty(numbers)


@torch.library.register_fake("sdas_kernels::network_backward", lib=_library)
def _(
    by_energy: Tensor | None, by_gradient: Tensor | None, state: Tensor, vectors: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    _, weights, _, _, even_only, for_vectors, for_weights = rest
    numbers = sum(shape.numel() for shape in shapes(Sizes.of(weights, even_only))[1])
    return vectors.new_empty(vectors.shape if for_vectors else (0, 3)), vectors.new_empty(numbers * for_weights)
