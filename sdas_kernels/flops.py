"""One counter of floating-point operations for every model.

    with FlopCounter() as counter:
        loss = model(batch)["energy"].sum()
        loss.backward()
    counter.total, counter.by_op, counter.unknown

The counter sees what PyTorch really runs below autograd: forward, backward, double backward, gradient clipping and
the optimizer, of any model. What one operation counts stands in :mod:`sdas_kernels.flop_rules`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdas_kernels import dispatch
from sdas_kernels.flop_rules import find_rule, tensors_in

Formula = Callable[..., int]
_formulas: dict[str, Formula] = {}
_NAMESPACES_WITHOUT_ARITHMETIC = frozenset({"prim", "prims", "c10d", "_c10d_functional", "profiler", "debugprims"})


def register_flops(name: str, formula: Formula) -> None:
    """Say what a custom operator costs: ``formula`` takes the operator's own arguments and returns FLOPs.

    ``name`` is qualified, such as ``sdas_kernels::spherical_harmonics``. For operators of this package the formula
    describes the native kernels; when the reference backend runs, the counter counts inside it. Raises `ValueError`
    for a name without namespace or one that is registered already.
    """
    if "::" not in name:
        raise ValueError(f"register_flops: the name must be qualified as namespace::operator, got {name!r}")
    if name in _formulas:
        raise ValueError(f"register_flops: {name} has a formula already")
    _formulas[name] = formula


def register_ladder(op: str, formulas: ModuleType) -> None:
    """Say what the native kernels of one of this package's operators cost, at every order.

    ``formulas`` has ``forward``, ``backward`` and ``double_backward``, which take the arguments of the operators.
    """
    for order in ("forward", "backward", "double_backward"):
        suffix = "" if order == "forward" else f"_{order}"
        register_flops(f"sdas_kernels::{op}{suffix}", getattr(formulas, order))


class FlopCounter(TorchDispatchMode):
    """Counts the floating-point operations of everything that runs inside its ``with`` block.

    total: FLOPs so far. by_op: FLOPs per qualified operator name, without those that count 0. unknown: calls per
    operator for which there is no rule and no formula; each is warned about once, since its work is missing in total.
    estimated: calls per operator of this package that ran a native kernel without a formula; each counts what its
    reference implementation takes on the same operands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_op: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.estimated: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """FLOPs so far."""
        return sum(self.by_op.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` as if nobody watched, and add what it costs."""
        kwargs = kwargs or {}
        qualified = func._schema.name
        namespace, _, name = qualified.partition("::")
        formula = _formulas.get(qualified)
        backend = _backend(name, args) if namespace == "sdas_kernels" else None
        if backend == "reference":
            return self._count_inside(func, args, kwargs)
        if backend is not None and formula is None:
            self.estimated[qualified] += 1
            with dispatch.use_backend("reference"):
                self._count_inside(func, args, kwargs)
            return func(*args, **kwargs)
        rule = find_rule(name) if namespace == "aten" else None
        if formula is None and rule is None and namespace == "aten":
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        out = func(*args, **kwargs)
        if formula is not None:
            self._add(qualified, formula(*args, **kwargs))
        elif rule is not None:
            self._add(qualified, rule(args, kwargs, out))
        elif namespace not in _NAMESPACES_WITHOUT_ARITHMETIC:
            self._warn(qualified)
        return out

    def _count_inside(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run the operator's own body with the counter on, which the dispatcher turned off for this call."""
        device = next(tensors_in(args)).device.type
        key = getattr(torch._C.DispatchKey, {"cpu": "CPU", "cuda": "CUDA", "meta": "Meta"}[device])
        with self:
            return func.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)

    def _add(self, name: str, flops: int) -> None:
        if flops:
            self.by_op[name] += int(flops)

    def _warn(self, name: str) -> None:
        if name not in self.unknown:
            warnings.warn(
                f"FlopCounter: no rule for {name}, its work is not counted; give one with register_flops", stacklevel=3
            )
        self.unknown[name] += 1


def _backend(name: str, args: Sequence[Any]) -> str | None:
    """The backend by which a custom operator of this package would run on these arguments, if it has backends."""
    owners = [op for op in dispatch.ops() if name == op or name.startswith(f"{op}_")]
    operand = next((t for t in tensors_in(args) if t.is_floating_point()), None)
    if not owners or operand is None:
        return None
    return dispatch.backend_name(max(owners, key=len), operand.device.type, operand.dtype)
