"""Checks of single arguments: errors that name the owner, the argument, what was given, and what is wanted."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def whole_number(owner: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """A Python int of low..high. Raises `TypeError` for what is none, `ValueError` outside of the range."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = value if type(value) is int else operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}") from None
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"{low}..{high}"
        raise ValueError(f"{owner}: {name} must be {wanted}, got {number}")
    return number


def positive_length(owner: str, name: str, value: Any) -> float:
    """A Python float, Å. Raises `TypeError` for what is no number, `ValueError` unless it is positive and finite."""
    found = number(owner, name, value, "Å")
    if not 0 < found < math.inf:
        raise ValueError(f"{owner}: {name} must be positive and finite (Å), got {found}")
    return found


def length(owner: str, name: str, value: Any) -> float:
    """A Python float, Å. Raises `TypeError` for what is no number, `ValueError` if it is negative or not finite."""
    found = number(owner, name, value, "Å")
    if not 0 <= found < math.inf:
        raise ValueError(f"{owner}: {name} must be 0 or more and finite (Å), got {found}")
    return found


def number(owner: str, name: str, value: Any, unit: str) -> float:
    """A Python float. Raises `TypeError`, with the unit that is wanted, for what is no number."""
    try:
        return value if type(value) is float else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"{owner}: {name} must be a number ({unit}), got {value!r}") from None


def whole_numbers(owner: str, low: int, **named: Any) -> list[int]:
    """`whole_number` of each, in their order."""
    return [whole_number(owner, name, value, low) for name, value in named.items()]


def switches(owner: str, **named: Any) -> list[bool]:
    """Python bools, in their order. Raises `TypeError` for anything but bools of Python or NumPy."""
    for name, value in named.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{owner}: {name} must be True or False, got {value!r}")
    return [bool(value) for value in named.values()]


def index_tensor(owner: str, name: str, given: Any) -> torch.Tensor:
    """A copy of integers `[n]`: int64, contiguous, and counting how often it is written to.

    Raises `TypeError` or `ValueError`.
    """
    dense_tensor(owner, name, given)
    if given.dtype not in INTEGERS:
        raise TypeError(f"{owner}: {name} must be integers, got {given.dtype}")
    if given.ndim != 1:
        raise ValueError(f"{owner}: {name} must have one axis, got shape {list(given.shape)}")
    with torch.inference_mode(False), torch.no_grad():
        return given.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)


def dense_tensor(owner: str, name: str, given: Any) -> None:
    """Raises `TypeError` for what is no tensor, or one that lies in memory in another way than by strides."""
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor, got {type(given).__name__}")
    if given.layout != torch.strided:
        raise TypeError(f"{owner}: {name} must be a dense tensor, got {given.layout}: use {name}.to_dense()")


def has_values(tensor: torch.Tensor) -> bool:
    """Whether numbers can be looked at: a meta tensor has none, nor has one that stands for another while tracing."""
    return tensor.device.type != "meta" and not isinstance(tensor, FakeTensor)


def device_type(owner: str, given: Any) -> str:
    """The kind of a device, such as "cuda" of "cuda:1". Raises `ValueError` for a word that names none."""
    try:
        return torch.device(given).type
    except (RuntimeError, TypeError):
        raise ValueError(f'{owner}: device must be one of PyTorch\'s, such as "cpu" or "cuda", got {given!r}') from None


def known_device(owner: str, given: Any) -> torch.device:
    """The device. Raises `ValueError` for a word that names none, or one that this process has not."""
    try:
        device = torch.device(given)
        if device.type != "cpu":
            torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{owner}: device must be one that PyTorch has here, got {given!r}: {reason}") from None
    return device
