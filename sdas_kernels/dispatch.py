"""Which implementation of an operator runs: the registry, the choice, and the words that explain it.

An operator has one public function and several backends, modules that hold functions of the same names
(`forward`, `backward`, `double_backward`). The choice is made when the operator runs, from the device and dtype of its
tensors, so a compiled graph and a state dict never know about backends.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch

from sdas_kernels import autocast, native, profiling
from sdas_kernels.arguments import FLOATING, device_type

BACKENDS = ("cuda", "triton", "cpp", "reference", "cuequivariance")  # in order of choice; the last only if forced


@dataclass(frozen=True)
class Backend:
    """One implementation of one operator.

    `available` says whether it can run in this process, and why or why not; it must not compile or touch a GPU.
    """

    op: str
    name: str
    module: str
    devices: tuple[str, ...] | None = None  # None: every device
    dtypes: tuple[torch.dtype, ...] | None = None  # None: every floating dtype
    available: Callable[[], tuple[bool, str]] = lambda: (True, "plain PyTorch, always there")

    def is_for(self, device: str, dtype: torch.dtype) -> bool:
        """Whether such tensors are what it is made for."""
        return device in (self.devices or (device,)) and dtype in (self.dtypes or (dtype,))

    def serves(self, device: str, dtype: torch.dtype) -> tuple[bool, str]:
        """Whether tensors of this device type and dtype can be given to it, with the reason."""
        if self.devices is not None and device not in self.devices:
            return False, f"runs on {', '.join(self.devices)} only"
        if self.dtypes is not None and dtype not in self.dtypes:
            return False, f"no {str(dtype).removeprefix('torch.')} kernel"
        return self.available()


_registry: dict[str, dict[str, Backend]] = {}
_forced: dict[str, str] = {}  # op, or "" for every op -> backend


def register(backend: Backend) -> None:
    """Add an implementation; operators call this when they are imported."""
    if backend.name not in BACKENDS:
        raise ValueError(f"backend {backend.name!r}: known backends are {', '.join(BACKENDS)}")
    _registry.setdefault(backend.op, {})[backend.name] = backend
    _choose.cache_clear()


def ops() -> list[str]:
    """Names of all operators."""
    return sorted(_registry)


@contextmanager
def use_backend(name: str, *only: str) -> Iterator[None]:
    """Run operators by one backend inside a `with` block, in the whole process.

    `use_backend("reference")` forces every operator, `use_backend("cpp", "spherical_harmonics")` only those named.
    The choice holds for whatever runs inside the block, backward passes included. Raises `ValueError` for an unknown
    backend or operator; an operator that has no such backend for its tensors raises `RuntimeError` when it runs.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r}: choose one of {', '.join(BACKENDS)}")
    unknown = [op for op in only if op not in _registry]
    if unknown:
        raise ValueError(f"operator {unknown[0]!r}: choose among {', '.join(ops())}")
    before = dict(_forced)
    _forced.update(dict.fromkeys(only or ("",), name))
    if not only:  # an outer choice for one operator yields to an inner choice for all
        for op in [op for op in _forced if op]:
            del _forced[op]
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def kernels(op: str, tensor: torch.Tensor) -> Any:
    """The module that implements `op` for tensors like `tensor`."""
    name, module = _choose(op, tensor.device.type, tensor.dtype, _forced.get(op) or _forced.get(""))
    module = profiling.named(op, name, module) if profiling.on else module
    return autocast.Off(module) if autocast.is_on() else module


def announce() -> None:
    """Warn where a model is made for a CPU and the compiled kernels are missing, not when it first runs."""
    if not _forced and not torch.cuda.is_available():
        native.warn_unless_available()


def backends(op: str, device: str, dtype: torch.dtype) -> list[str]:
    """Names of the backends that can run `op` here on such tensors, fastest first. Raises `KeyError` without the op."""
    return [name for name in BACKENDS if name in _registry[op] and _registry[op][name].serves(device, dtype)[0]]


def backend_name(op: str, device: str, dtype: torch.dtype) -> str:
    """Name of the backend that `kernels` chooses."""
    return _choose(op, device, dtype, _forced.get(op) or _forced.get(""))[0]


def runs_all(backend: str, ops: Sequence[str], device: str, dtype: torch.dtype) -> bool:
    """Whether `backend` is the one that `kernels` chooses for each of the operators."""
    asked, everywhere = _forced.get, _forced.get("")
    return all(_choose(op, device, dtype, asked(op) or everywhere)[0] == backend for op in ops)


@cache
def _choose(op: str, device: str, dtype: torch.dtype, forced: str | None) -> tuple[str, ModuleType]:
    candidates = _registry[op]
    if forced is not None:
        if forced not in candidates:
            raise RuntimeError(f"{op} has no backend {forced!r}: it has {', '.join(candidates)}")
        served, why = candidates[forced].serves(device, dtype)
        if not served:
            raise RuntimeError(f"{op} cannot run by backend {forced!r} on {device} tensors of {dtype}: {why}")
        return forced, importlib.import_module(candidates[forced].module)
    if "cpp" in candidates and candidates["cpp"].is_for(device, dtype):
        native.warn_unless_available()
    for name in BACKENDS:
        if name in candidates and candidates[name].serves(device, dtype)[0]:
            return name, importlib.import_module(candidates[name].module)
    raise RuntimeError(f"{op} has no backend for {device} tensors of {dtype}")


class Explanation(list[dict[str, Any]]):
    """Rows of `explain()`: a list of dicts that prints as a table."""

    def __str__(self) -> str:
        head = ("op", "device", "dtype", "backend", "why")
        cells = [head] + [tuple(str(row[key]) for key in head) for row in self]
        width = [max(len(row[column]) for row in cells) for column in range(len(head))]
        return "\n".join("  ".join(text.ljust(n) for text, n in zip(row, width, strict=True)).rstrip() for row in cells)

    __repr__ = __str__


def explain(device: str | None = None, dtype: torch.dtype = torch.float32) -> Explanation:
    """Which backend each operator would use here, and why not a faster one.

    `device`: "cpu", "cuda", or None for all that this process has. Prints as a table; also a list of dicts with the
    keys op, device, dtype, backend, why. Raises `ValueError` or `TypeError` for what is no device or no floating dtype.
    """
    if dtype not in FLOATING:
        raise TypeError(f"explain: dtype must be a floating dtype, got {dtype!r}")
    present = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    devices = present if device is None else [device_type("explain", device)]
    rows = Explanation()
    for op in ops():
        for kind in devices:
            chosen = backend_name(op, kind, dtype)
            forced = _forced.get(op) or _forced.get("")
            why = "forced by use_backend" if forced else _registry[op][chosen].serves(kind, dtype)[1]
            passed_over = []
            for name in BACKENDS[: BACKENDS.index(chosen)] if not forced else ():
                if kind not in _devices(op, name):
                    continue
                if name not in _registry[op]:
                    passed_over.append(f"no {name} kernel yet")
                else:
                    passed_over.append(f"{name}: {_registry[op][name].serves(kind, dtype)[1]}")
            rows.append(
                {
                    "op": op,
                    "device": kind,
                    "dtype": str(dtype).removeprefix("torch."),
                    "backend": chosen,
                    "why": "; ".join([why, *passed_over]),
                }
            )
    return rows


def _devices(op: str, name: str) -> set[str]:
    """Device types that a backend of an operator is for; where the operator has none, those of other operators'."""
    of = [_registry[op]] if name in _registry[op] else list(_registry.values())
    found = [candidates[name].devices for candidates in of if name in candidates]
    return {kind for devices in found for kind in devices or ("cpu", "cuda")}
