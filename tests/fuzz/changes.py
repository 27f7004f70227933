"""What a caller may do to an argument: the same numbers in another guise, which must not matter, or something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

Tensor = torch.Tensor


class Subclass(torch.Tensor):
    """A tensor by another name."""


class Change(NamedTuple):
    """name, what it does, and whether it keeps a valid argument valid."""

    name: str
    apply: Callable[[Any], Any]
    harmless: bool


def _every_second(t: Tensor) -> Tensor:
    return torch.stack([t, torch.zeros_like(t)], -1)[..., 0]


def _offset(t: Tensor) -> Tensor:
    return torch.cat([t.flatten()[:1] if t.numel() else t.new_zeros(1), t.flatten()])[1:].view(t.shape)


def _transposed(t: Tensor) -> Tensor:
    return t if t.ndim < 2 else t.transpose(0, -1).contiguous().transpose(0, -1)


def _expanded(t: Tensor) -> Tensor:
    return t if not t.numel() else t.flatten()[0].expand(t.shape)


def _made_in_inference_mode(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def _longer(t: Tensor) -> Tensor:
    return t if not t.ndim else torch.cat([t, t[-1:] if len(t) else t.new_zeros(1, *t.shape[1:])])


def _wider(t: Tensor) -> Tensor:
    return t if not t.ndim or not t.shape[-1] else torch.cat([t, t[..., -1:]], -1)


GUISES = [
    ("every second", _every_second),
    ("offset", _offset),
    ("transposed", _transposed),
    ("subclass", lambda t: t.as_subclass(Subclass)),
    ("parameter", lambda t: torch.nn.Parameter(t, requires_grad=False)),
]
KINDS = [
    ("list", lambda t: t.tolist()),
    ("array", lambda t: t.numpy()),
    ("None", lambda t: None),
    ("word", lambda t: "words"),
    ("number", lambda t: 1.5),
    ("sparse", lambda t: t.to_sparse()),
    ("meta", lambda t: t.to("meta")),
    ("axis more", lambda t: t[None]),
    ("axis less", lambda t: t[0] if t.ndim and len(t) else t.sum()),
    ("row more", _longer),
    ("row less", lambda t: t[1:] if t.ndim else t),
    ("no rows", lambda t: t[:0] if t.ndim else t),
    ("column more", _wider),
    ("column less", lambda t: t[..., 1:] if t.ndim else t),
    ("bool", lambda t: t > 0),
    ("complex", lambda t: t.to(torch.complex64)),
]
FLOATS = [
    *(Change(name, apply, True) for name, apply in GUISES),
    Change("expanded", _expanded, False),
    Change("requires grad", lambda t: t.clone().requires_grad_(), True),
    Change("negated twice", lambda t: torch._neg_view(-t), True),
    Change("imaginary part", lambda t: torch.complex(t, -t).conj().imag, True),
    *(Change(name, apply, False) for name, apply in KINDS),
    *(
        Change(str(dtype), lambda t, dtype=dtype: t.to(dtype), False)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64)
    ),
]


def _with(t: Tensor, number: int) -> Tensor:
    changed = t.clone()
    if changed.numel():
        changed.view(-1)[-1] = number
    return changed


INDICES = [
    *(Change(name, apply, True) for name, apply in GUISES),
    Change("int32", lambda t: t.int(), True),
    Change("int16", lambda t: t.short(), True),
    Change("uint8", lambda t: t.byte(), True),
    Change("inference mode", _made_in_inference_mode, True),
    *(Change(name, apply, False) for name, apply in KINDS),
    Change("float", lambda t: t.double(), False),
    Change("backwards", lambda t: t.flip(0) if t.ndim else t, False),
    Change("one more", lambda t: t + 1, False),
    *(Change(f"ends with {n}", lambda t, n=n: _with(t, n), False) for n in (-1, 10**9, -(2**62), 2**62)),
]
BOOLS = [
    Change("every second", _every_second, True),
    Change("offset", _offset, True),
    *(Change(name, apply, False) for name, apply in KINDS if name not in ("bool", "number")),
    Change("int", lambda t: t.int(), False),
    Change("other", lambda t: ~t, False),
]
NUMBERS = [
    Change("int64 of NumPy", np.int64, True),
    *(Change(repr(n), lambda _, n=n: n, False) for n in (-1, 0, 1, 2, 9, 2**40, True, 2.0, "2", None)),
]
LENGTHS = [
    Change("float64 of NumPy", np.float64, True),
    Change("tensor", torch.tensor, True),
    *(Change(repr(x), lambda _, x=x: x, False) for x in (0, -1.0, 3, float("nan"), float("inf"), "5", None)),
]
WORDS = [Change(repr(x), lambda _, x=x: x, False) for x in ("", "norm", "rows", 3, None)]


def changes_of(value: Any) -> list[Change]:
    """What can be done to an argument like this."""
    if isinstance(value, torch.Tensor):
        return BOOLS if value.dtype == torch.bool else FLOATS if value.is_floating_point() else INDICES
    if isinstance(value, bool) or value is None:
        return []
    return {int: NUMBERS, float: LENGTHS, str: WORDS}[type(value)]


def plain(value: Any) -> Any:
    """The same numbers without any guise: what the reference is given."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type == "meta":
        return value
    with torch.inference_mode(False):
        clean = value.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
        clean = clean.clone(memory_format=torch.contiguous_format)
        if clean.is_floating_point() or clean.is_complex():
            return clean.requires_grad_(value.requires_grad)
        return clean if clean.dtype == torch.bool else clean.long()
