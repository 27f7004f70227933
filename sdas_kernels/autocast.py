"""Under `torch.autocast`, operators and potentials compute in the dtype of their operands.

Forces in bfloat16 would be wrong by a percent, and no user would see why. So inside, autocast is off: results are those
without it. It may leave operands of several dtypes, such as keys that a linear layer gave in bfloat16 beside radial
functions in float32: then the widest of them is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

P = ParamSpec("P")
R = TypeVar("R")

is_on: Callable[[], bool] = torch._C._is_any_autocast_enabled
"""Whether autocast is on for any device."""


def in_operand_dtype(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off inside, and, where it was on, its floating operands in the widest of their dtypes.

    Operands are the tensors among its arguments, also inside lists and tuples; those of modules and graphs stay.
    """

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        if not is_on():
            return function(*args, **options)
        with off():
            args, options = _widened((args, options))
            return function(*args, **options)

    return run


class Off:
    """A module whose functions run with autocast off. Backends are called by it where autocast is on, backward too."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return off()(getattr(self._module, name))


@contextmanager
def off() -> Iterator[None]:
    """Autocast is off inside, for every device."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def _widened(arguments: Any) -> Any:
    dtypes = {leaf.dtype for leaf in tree_leaves(arguments) if _is_floating(leaf)}
    if len(dtypes) < 2:
        return arguments
    first, *others = dtypes
    for dtype in others:
        first = torch.promote_types(first, dtype)
    return tree_map_only(torch.Tensor, lambda tensor: tensor.to(first) if _is_floating(tensor) else tensor, arguments)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
