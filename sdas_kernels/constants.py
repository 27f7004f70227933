"""Tensors that are made once and kept, such as coefficients of couplings."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import _disable_current_modes

R = TypeVar("R")


def constant(make: Callable[..., R]) -> Callable[..., R]:
    """A function of hashable positional arguments whose tensors are made at the first call with these and kept.

    They are made out of sight of whatever mode is on at that time: a counter of operations counts the same at every
    call, and what is kept is neither fake, nor made for inference only, nor on a default device other than the CPU.
    """

    @wraps(make)
    def unseen(*args: Any) -> R:
        with _disable_current_modes(), torch.inference_mode(False), torch.device("cpu"):
            return make(*args)

    return lru_cache(maxsize=4096)(unseen)
