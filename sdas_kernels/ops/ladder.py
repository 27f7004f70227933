"""How an operator is differentiated whose derivatives are operators too, in every order and direction there is.

    z = value(x)        g_x = backward(g, x) = Jᵀ g        double_backward(t, g, x) = ∂<t, Jᵀ g>/∂(g, x)

From these three rungs, J the derivative of z by x, follow the reverse rules, and the forward rules as well:

    ż = J ẋ                                     the gradient by g of <ẋ, Jᵀ g>, which does not depend on g
    ġ_x = Jᵀ ġ + ∂<ẋ, Jᵀ g>/∂x                  since a second derivative is symmetric
    of J ẋ by cotangents c, in reverse:         backward(c, x) by ẋ, and double_backward(ẋ, c, x) by x

What else the third derivative has is nowhere: asking for it is an error, never a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdas_kernels.ops.needs import asked_for
from sdas_kernels.transforms import Gradients, Mapping, Rule, batch, differentiate, keep, needs_of, one_by_one


def no_third_derivative(op: str) -> NotImplementedError:
    """The error to raise where a second derivative is to be differentiated again."""
    return NotImplementedError(
        f"{op}: its second derivative cannot be differentiated again. There are two derivatives: reverse over reverse, "
        "forward over reverse, or reverse over forward"
    )


def connect(name: str, mapping: Mapping | None = None) -> None:
    """Register the rules of an operator and of `<name>_backward` and `<name>_double_backward`.

    With n tensors as operands, m results, `index` a list of tensors that are not differentiated, and any options:

        value(*operands, [index], *options)
        backward(*cotangents, *operands, [index], *options, [needs])
        double_backward(*tangents, *cotangents, *operands, [index], *options, [needs])

    `needs` says which gradients are wanted. Options may be left out by the gradients, all by the same name. `mapping`
    is how `torch.vmap` maps each of the three, one by one if not said.
    """
    rungs = _Rungs(name)
    for op, rule in ((rungs.value, _Value), (rungs.backward, _Backward), (rungs.double_backward, _DoubleBackward)):
        differentiate(op, rule(rungs))
        batch(op, mapping or one_by_one)


class _Rungs:
    """The three operators, called alike whatever they leave out."""

    def __init__(self, name: str) -> None:
        self.name, ops = name, torch.ops.sdas_kernels
        self.value = getattr(ops, name).default
        self.backward = getattr(ops, f"{name}_backward").default
        self.double_backward = getattr(ops, f"{name}_double_backward").default
        arguments = self.value._schema.arguments
        kinds = [str(argument.type) for argument in arguments]
        self.n = next((k for k, kind in enumerate(kinds) if kind != "Tensor"), len(kinds))
        self.m = len(self.value._schema.returns)
        self.indexed = "List[Tensor]" in kinds
        rest = [argument.name for argument in self.backward._schema.arguments[self.m + self.n :]]
        names = [argument.name for argument in arguments[self.n :]]
        self.kept = [names.index(name) for name in rest if name != "needs"]  # what follows the operands of gradients
        self.backward_takes_needs = "needs" in rest
        last = self.double_backward._schema.arguments
        self.double_backward_takes_needs = last[-1].name == "needs"
        self.double_backward_takes_none = str(last[0].type) != "Tensor"  # among the tangents, for zero

    def gradients(
        self, cotangents: Sequence[Tensor], operands: Sequence[Tensor], rest: Sequence[Any], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """By every operand, None where not needed."""
        found = self.backward(*cotangents, *operands, *rest, *([list(needs)] if self.backward_takes_needs else []))
        return asked_for(found if self.n > 1 else [found], needs)

    def second(
        self,
        tangents: Gradients,
        cotangents: Sequence[Tensor],
        operands: Sequence[Tensor],
        rest: Sequence[Any],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """Of <tangents, gradients> by every cotangent and operand, None where not needed."""
        first = tangents if self.double_backward_takes_none else _filled(tangents, operands)
        chosen = [list(needs)] if self.double_backward_takes_needs else []
        return asked_for(self.double_backward(*first, *cotangents, *operands, *rest, *chosen), needs)

    def split(self, ctx: Any, *counts: int) -> list[list[Any]]:
        """What `save` kept, in groups of these sizes, and then what follows the operands."""
        tensors, groups = list(ctx.saved_tensors), []
        for count in counts:
            groups.append(tensors[:count])
            del tensors[:count]
        return [*groups, [tensors, *ctx.options] if self.indexed else ctx.options]

    def save(self, ctx: Any, arguments: Sequence[Any], tensors: int) -> None:
        """Keep that many tensors, the index and what follows it."""
        *kept, rest = [*arguments[:tensors], list(arguments[tensors:])]
        index = rest.pop(0) if self.indexed else []
        keep(ctx, [*kept, *index])
        ctx.options = rest


class _RungRule(Rule):
    def __init__(self, rungs: _Rungs) -> None:
        self.rungs = rungs


class _Value(_RungRule):
    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        r = self.rungs
        rest = arguments[r.n :]
        r.save(ctx, [*arguments[: r.n], *(rest[k] for k in r.kept)], r.n)
        ctx.shapes = [result.shape for result in (results if r.m > 1 else [results])]

    def backward(self, ctx: Any, *cotangents: Tensor | None) -> Gradients:
        operands, rest = self.rungs.split(ctx, self.rungs.n)
        return self.rungs.gradients(_zeros(cotangents, ctx, operands), operands, rest, needs_of(ctx, len(operands)))

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Gradients:
        r = self.rungs
        operands, rest = r.split(ctx, r.n)
        zeros = _zeros([None] * r.m, ctx, operands)
        return r.second(tangents[: r.n], zeros, operands, rest, [True] * r.m + [False] * r.n)[: r.m]


class _Backward(_RungRule):
    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        r = self.rungs
        ctx.wanted = arguments[-1] if r.backward_takes_needs else [True] * r.n
        r.save(ctx, arguments[:-1] if r.backward_takes_needs else arguments, r.m + r.n)

    def backward(self, ctx: Any, *tangents: Tensor | None) -> Gradients:
        r = self.rungs
        cotangents, operands, rest = r.split(ctx, r.m, r.n)
        return r.second(asked_for(tangents, ctx.wanted), cotangents, operands, rest, needs_of(ctx, r.m + r.n))

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Gradients:
        r = self.rungs
        cotangents, operands, rest = r.split(ctx, r.m, r.n)
        by_cotangents, by_operands = tangents[: r.m], tangents[r.m : r.m + r.n]
        found: list[Tensor | None] = [None] * r.n
        if any(t is not None for t in by_cotangents):
            found = r.gradients(_filled(by_cotangents, cotangents), operands, rest, ctx.wanted)
        if any(t is not None for t in by_operands):
            turned = r.second(by_operands, cotangents, operands, rest, [False] * r.m + list(ctx.wanted))[r.m :]
            found = [b if a is None else a if b is None else a + b for a, b in zip(found, turned, strict=True)]
        return [operands[0].new_zeros(0) if t is None else t for t in found]  # what is not wanted has no elements


class _DoubleBackward(_RungRule):
    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        r = self.rungs
        r.save(ctx, arguments[:-1] if r.double_backward_takes_needs else arguments, r.n + r.m + r.n)

    def backward(self, ctx: Any, *cotangents: Tensor | None) -> Gradients:
        r = self.rungs
        if any(c is not None for c in cotangents[r.m :]):
            raise no_third_derivative(r.name)
        tangents, grads, operands, rest = r.split(ctx, r.n, r.m, r.n)
        given = _filled(cotangents[: r.m], grads)
        needs = needs_of(ctx, r.n + r.m + r.n)
        by_tangents: Gradients = [None] * r.n
        by_operands: Gradients = [None] * r.n
        if any(needs[: r.n]):
            by_tangents = r.gradients(given, operands, rest, needs[: r.n])
        if any(needs[-r.n :]):
            by_operands = r.second(tangents, given, operands, rest, [False] * r.m + needs[-r.n :])[r.m :]
        return [*by_tangents, *[None] * r.m, *by_operands]

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Gradients:
        raise no_third_derivative(self.rungs.name)


def _filled(given: Gradients, like: Sequence[Tensor]) -> list[Tensor]:
    """Zeros in place of None."""
    return [torch.zeros_like(t) if g is None else g for g, t in zip(given, like, strict=True)]


def _zeros(given: Gradients, ctx: Any, operands: Sequence[Tensor]) -> list[Tensor]:
    """Zeros in place of None, of the shapes of the results."""
    return [operands[0].new_zeros(shape) if g is None else g for g, shape in zip(given, ctx.shapes, strict=True)]
