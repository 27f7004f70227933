"""Unpickling of graph records without running what they name.

A pickle can call any function that it names. Here a name is looked up in a short table and never imported: classes of
torch_geometric become inert :class:`Record` objects, tensors and arrays are rebuilt from their bytes, and any other
name is refused with an error that says which.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from sdas.data.errors import DataError

RECORD_MODULES = ("torch_geometric.data.data", "torch_geometric.data.storage")


class Record:
    """Stands in for an object of torch_geometric: it keeps the pickled state and does nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: dict[str, Any] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = object.__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots), as pickle writes slotted objects
            state = {**(state[0] or {}), **(state[1] or {})}
        self.state = dict(state) if isinstance(state, dict) else {}

    def fields(self) -> dict[str, Any]:
        """The fields that are set: of torch_geometric 2, in the mapping of its store; of version 1, attributes."""
        store = self.state.get("_store")
        if isinstance(store, Record):
            return store.fields()
        mapping = self.state.get("_mapping", self.state)
        return {key: value for key, value in mapping.items() if value is not None and not key.startswith("_")}


def _storage(data: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _latin_1(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as pickle protocols 0 to 2 write them, spelled as text in that one encoding."""
    if encoding != "latin1":
        raise _Unsafe(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _parameter(data: Any, requires_grad: bool, hooks: Any) -> Any:
    return data


def _array(*args: Any) -> Any:
    """Start an array as pickle does, but always an empty one of bytes: the shape and dtype come with its state."""
    return np.ndarray((0,), np.int8)


class _Unsafe(Exception):
    """A name in a pickle that is not in the table."""


@cache
def _builders() -> dict[tuple[str, str], Callable[..., Any]]:
    """The table; torch, slow to import, is imported only where such records are read."""
    import torch

    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin_1,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("torch", "Size"): torch.Size,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    scalar: Any = np.float64(0.0).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[module, "_reconstruct"] = _array
        table[module, "scalar"] = scalar
    return table


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in RECORD_MODULES:
            return Record
        try:
            return _builders()[module, name]
        except KeyError:
            raise _Unsafe(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Unsafe(f"persistent id {pid!r}")


def load_record(data: bytes, where: str) -> Any:
    """The object pickled in ``data``; raises :class:`DataError` for any name outside the table and for damage."""
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except _Unsafe as error:
        raise DataError(
            f"{where}: its pickle names {error}, which is not among the classes of graph records; it was not run"
        ) from None
    except Exception as error:  # damaged pickles fail in every way
        raise DataError(f"{where}: damaged record: {type(error).__name__}: {error}") from None
