"""How the operators of this library take part in what PyTorch does to functions: differentiate, map, save and redo.

PyTorch's own registration of a custom operator knows reverse rules only: it takes the forward derivative for zero, and
`torch.func` refuses it. So rules of our own are registered with the dispatcher, below which every way to call an
operator passes: the public functions, `torch.ops`, compiled graphs. There, one level of `torch.func` is as another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.utils import _pytree as pytree

_library = torch.library.Library("sdas_kernels", "FRAGMENT")
Gradients = Sequence[Tensor | None]


def transformed() -> bool:
    """Whether a transform of `torch.func` or a level of forward derivatives is at work."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def value_and_gradients(
    function: Callable[..., Tensor], points: Sequence[Tensor], create_graph: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`function(*points)` and the gradients of its sum by the points; under a transform they are differentiable always.

    Gradients must be enabled.
    """
    if transformed():
        value, pull_back, *_ = torch.func.vjp(function, *points)
        return value, pull_back(torch.ones_like(value))
    leaves = [point if point.requires_grad else point.detach().requires_grad_() for point in points]
    value = function(*leaves)
    return value, torch.autograd.grad(value.sum(), leaves, create_graph=create_graph)


class Rule:
    """How one operator is differentiated. Its tensors come first among its arguments; those of a list count each.

    `save(ctx, arguments, results)` keeps what the derivatives need. `backward(ctx, *cotangents)` gives gradients by the
    first tensors, `jvp(ctx, *tangents)` a tangent of every result. None stands for zero among cotangents, tangents and
    gradients; at least one cotangent or tangent is a tensor.
    """

    def save(self, ctx: Any, arguments: Sequence[Any], results: Any) -> None:
        raise NotImplementedError

    def backward(self, ctx: Any, *cotangents: Tensor | None) -> Gradients:
        raise NotImplementedError

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> Sequence[Tensor | None]:
        raise NotImplementedError


def differentiate(op: Any, rule: Rule) -> None:
    """Register the rule of an operator, `torch.ops.sdas_kernels.<name>.default`."""
    below = torch._C._after_autograd_keyset
    lists = [k for k, argument in enumerate(op._schema.arguments) if str(argument.type) == "List[Tensor]"]
    several = len(op._schema.returns) > 1

    def run(keyset: Any, arguments: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & below, *arguments)

    def forward(keyset: Any, lengths: Sequence[int], *flat: Any) -> Any:
        arguments = _joined(flat, lists, lengths)
        if not torch._C._are_functorch_transforms_active():
            return run(keyset, arguments)
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):  # as the levels below may want
            return run(keyset, arguments)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, lengths, *flat = inputs
        ctx.set_materialize_grads(False)
        rule.save(ctx, _joined(flat, lists, lengths), output)

    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        given = any(cotangent is not None for cotangent in cotangents)
        found = rule.backward(ctx, *cotangents) if given else ()
        return None, None, *found, *[None] * (len(ctx.needs_input_grad) - 2 - len(found))

    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> Any:
        found = rule.jvp(ctx, *tangents)
        return tuple(found) if several else found[0]

    name = f"GeneratedBackwardFor_{op._schema.name.replace('::', '_')}"  # as PyTorch's own are called
    rules: list[Callable[..., Any]] = [forward, setup_context, backward, jvp]
    function: Any = type(name, (_SingleLevelFunction,), {each.__name__: staticmethod(each) for each in rules})

    def autograd(keyset: Any, *arguments: Any) -> Any:
        if forward_ad._current_level < 0 and not (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)):
            return run(keyset, arguments)
        lengths = [len(arguments[k]) for k in lists]
        flat = _spread(arguments, lists)
        if not torch._C._are_functorch_transforms_active():
            return function.apply(keyset, lengths, *flat)
        with enable_single_level_autograd_function():
            return function.apply(keyset, lengths, *flat)

    with warnings.catch_warnings():  # PyTorch's own registration is overridden
        warnings.filterwarnings("ignore", message="Warning only once for all operators", category=UserWarning)
        _library.impl(op._schema.name.partition("::")[2], autograd, "Autograd", with_keyset=True, allow_override=True)


def _spread(arguments: Sequence[Any], lists: Sequence[int]) -> list[Any]:
    """The arguments with the tensors of lists one by one."""
    if not lists:
        return list(arguments)
    flat: list[Any] = []
    for k, argument in enumerate(arguments):
        if k in lists:
            flat += argument
        else:
            flat.append(argument)
    return flat


def _joined(flat: Sequence[Any], lists: Sequence[int], lengths: Sequence[int]) -> list[Any]:
    """What `_spread` spread."""
    arguments = list(flat)
    for k, length in zip(lists, lengths, strict=True):
        arguments[k : k + length] = [arguments[k : k + length]]
    return arguments


def keep(ctx: Any, tensors: Sequence[Tensor | None]) -> None:
    """Save tensors for the rule's derivatives, both ways."""
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)


def needs_of(ctx: Any, count: int) -> list[bool]:
    """Which of the first tensors of an operator require a gradient."""
    return list(ctx.needs_input_grad[2 : 2 + count])


Mapping = Callable[[Any, int, Sequence[Any], Sequence[Any]], tuple[Any, Any]]


def batch(op: Any, mapping: Mapping) -> None:
    """Register how `torch.vmap` maps an operator: `mapping(op, size, dims, arguments)` gives results and their dims.

    dims: of every argument the axis that is mapped, None if there is none, and a list of these for a list.
    """

    def rule(info: Any, dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        return mapping(op, info.batch_size, dims, arguments)

    def rule_of_grads(keyset: Any, *arguments: Any) -> Any:
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        opened = pytree.tree_map_only(Tensor, lambda t: torch._remove_batch_dim(t, level, 1, 0), list(arguments))
        size = max(t.shape[0] for t in pytree.tree_leaves(opened) if isinstance(t, Tensor))  # 1 if not mapped
        dims = pytree.tree_map(lambda t: 0 if isinstance(t, Tensor) and len(t) == size else None, opened)
        inner = pytree.tree_map(lambda t, new, dim: t if dim is None else new, list(arguments), opened, dims)
        found, dims_out = mapping(op, size, dims, inner)
        if isinstance(found, Tensor):
            return torch._add_batch_dim(found, dims_out, level)
        pairs = zip(found, dims_out, strict=True)
        return tuple(t if dim is None else torch._add_batch_dim(t, dim, level) for t, dim in pairs)

    torch.library.register_vmap(op._schema.name, rule, lib=_library)
    # what `torch.autograd.grad(is_grads_batched=True)` maps by, and `torch.autograd.functional` with vectorize=True
    _library.impl(op._schema.name.partition("::")[2], rule_of_grads, "Batched", with_keyset=True)


def one_by_one(op: Any, size: int, dims: Sequence[Any], arguments: Sequence[Any]) -> tuple[Any, Any]:
    """A call for each: what the operators on graphs do, whose edges join the rows."""

    def at(k: int, argument: Any, dim: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            each = dim if isinstance(dim, (list, tuple)) else [None] * len(argument)
            return [at(k, *pair) for pair in zip(argument, each, strict=True)]
        return argument if dim is None else argument.select(dim, k).contiguous()

    if size == 0:
        raise ValueError(f"{op._schema.name}: torch.vmap over an axis of no elements")
    calls = [op(*(at(k, *pair) for pair in zip(arguments, dims, strict=True))) for k in range(size)]
    if isinstance(calls[0], Tensor):
        return torch.stack(calls), 0
    return tuple(torch.stack(each) for each in zip(*calls, strict=True)), (0,) * len(calls[0])


def by_rows(
    op: Any, size: int, dims: Sequence[Any], arguments: Sequence[Any], shared: Sequence[int] = ()
) -> tuple[Any, Any]:
    """One call, the mapped axis in front of the rows, for an operator whose rows have nothing to do with each other.

    shared: places of arguments that all rows share, which must not be mapped.
    """
    folded, rows = list(arguments), 0
    for k, (argument, dim) in enumerate(zip(arguments, dims, strict=True)):
        if isinstance(argument, Tensor) and k not in shared:
            mapped = argument.expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)
            rows = mapped.shape[1]
            folded[k] = mapped.flatten(0, 1).contiguous()
    found = op(*folded)
    if isinstance(found, Tensor):
        return found.unflatten(0, (size, rows)), 0
    dims_out = tuple(0 if len(each) == size * rows else None for each in found)  # None: a gradient not asked for
    each_and_dim = zip(found, dims_out, strict=True)
    return tuple(t if dim is None else t.unflatten(0, (size, rows)) for t, dim in each_and_dim), dims_out
