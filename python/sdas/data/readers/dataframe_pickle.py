"""Tables out of pickles of pandas, with structures of ASE in them, without running any of it.

The machine and the rules are those of :mod:`sdas.data.readers.restricted_pickle`: a table of names, everything else is
refused. Here the names are those of a DataFrame, of its indices and blocks, and of the buffers in which pandas 3 keeps
text. ``ase.Atoms`` and what hangs on it are known too. Neither pandas nor pyarrow is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sdas.data.errors import DataError
from sdas.data.readers.pickle_machine import Maker
from sdas.data.readers.restricted_pickle import (
    Allowance,
    Array,
    Dtype,
    Finder,
    Record,
    load_pickle,
    no_instance,
    numpy_names,
    sizes_of,
)

WHAT = "tables of structures"
_OBJECT_CODES = ("O8", "O")
_OBJECT_FLAGS = 63
_ASE_MODULES = (
    "ase.atoms",
    "ase.cell",
    "ase.calculators.singlepoint",
    "ase.spacegroup.spacegroup",
)
_CONSTRAINTS = "ase.constraints"
_ARGUMENTS = (
    ("builtins", "bytearray"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.indexes.numeric", "Int64Index"),
    ("pandas.core.internals.managers", "BlockManager"),
)
"""Classes that are arguments of a call, or called with arguments that are taken as they are."""
_RECORDS = (
    ("pandas", "DataFrame"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.arrays", "ArrowStringArray"),
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"),
    ("pandas.core.arrays.string_", "StringArray"),
    ("pandas.arrays", "StringArray"),
    ("pandas", "StringDtype"),
    ("pandas.core.arrays.string_", "StringDtype"),
)


class Objects(Array):
    """An array of numbers as of graph records, or of Python objects: then ``items`` are these, in C's order."""

    items: list[Any] | None = None
    shape: tuple[int, ...] = ()

    def set_state(self, state: Any) -> None:
        """NumPy's state, with a list in place of bytes for objects."""
        _, shape, dtype, _, data = state
        if not (isinstance(dtype, _ObjectDtype) and dtype.dtype.hasobject):
            super().set_state(state)
            return
        self.shape = sizes_of(shape)
        if not isinstance(data, list) or math.prod(self.shape) != len(data):
            raise ValueError("an array of objects does not fit its list")
        self.items = data


class _ObjectDtype(Dtype):
    """A plain numeric type, or that of Python objects."""

    def __init__(self, code: str, *arguments: Any) -> None:
        if code in _OBJECT_CODES:
            self.dtype = np.dtype(object)
        else:
            super().__init__(code, *arguments)

    def set_state(self, state: Any) -> None:
        """As of a numeric type; of objects nothing is taken."""
        if not self.dtype.hasobject:
            super().set_state(state)


class Fixed(Record):
    """Constraints of ASE that fix atoms wholly."""


def load_table(data: bytes, where: str) -> dict[str, Sequence[Any]]:
    """The columns of the DataFrame pickled in ``data``, name → values; raises :class:`DataError` for anything else."""
    frame = load_pickle(data, where, _names, WHAT)
    try:
        return _columns(frame)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{where}: not a DataFrame of pandas that is known: {type(error).__name__}: {error}") from None


def _names(allowance: Allowance) -> Finder:
    table: dict[tuple[str, str], Maker] = numpy_names(allowance)
    table |= {name: lambda *_: Record() for name in _RECORDS}
    table |= dict.fromkeys(_ARGUMENTS, no_instance)
    table |= {
        ("numpy", "dtype"): _ObjectDtype,
        ("pandas.core.internals.managers", "BlockManager"): _Manager,
        ("pandas._libs.internals", "_unpickle_block"): _block,
        ("pandas.core.internals.blocks", "new_block"): _block,
        ("pandas.core.indexes.base", "_new_Index"): lambda kind, state: state,
        ("pyarrow.lib", "type_for_alias"): lambda name: name,
        ("pyarrow.lib", "py_buffer"): lambda data: data,
        ("pyarrow.lib", "chunked_array"): lambda chunks, *_: chunks,
        ("pyarrow.lib", "_restore_array"): lambda state: _texts(state, allowance),
        ("ase.calculators.calculator", "Parameters"): lambda *_: {},
    }
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "slice"] = slice
        table[builtins, "getattr"] = lambda *_: Record()  # a method that a calculator of ASE keeps; none is looked up
        table[builtins, "bytearray"] = _bytes
    for numpy_core in ("numpy.core", "numpy._core"):
        table[f"{numpy_core}.multiarray", "_reconstruct"] = lambda *_: Objects()
    return lambda name: table.get(name) or _of_ase(name)


def _of_ase(name: tuple[str, str]) -> Maker | None:
    """An inert record for a class of ASE; nothing for its functions."""
    module, attribute = name
    constraint = module == _CONSTRAINTS or module.startswith(f"{_CONSTRAINTS}.")
    if not attribute[:1].isupper() or not (constraint or module in _ASE_MODULES):
        return None
    return (lambda *_: Fixed()) if constraint and attribute == "FixAtoms" else lambda *_: Record()


def _bytes(data: Any = b"", *_: Any) -> bytes:
    if not isinstance(data, bytes):
        raise TypeError("a buffer of other than bytes")
    return data


class _Manager(Record):
    """Blocks of columns and the axes: arguments since pandas 1.3, before that the state."""

    def __init__(self, blocks: Any = (), axes: Any = ()) -> None:
        super().__init__()
        self.blocks, self.axes = blocks, axes

    def set_state(self, state: Any) -> None:
        """The state of old: its last part is a dictionary by version."""
        content = state[-1]["0.14.1"]
        self.axes = content["axes"]
        self.blocks = [_block(block["values"], block["mgr_locs"]) for block in content["blocks"]]


def _block(values: Any, placement: Any, ndim: Any = 2) -> tuple[Any, Any]:
    return values, placement


def _texts(state: Any, allowance: Allowance) -> list[str]:
    """An array of text of pyarrow: offsets and bytes."""
    kind, length, _, start, (_, offsets, content), *_ = state
    if kind not in ("string", "large_string") or start != 0 or not isinstance(length, int):
        raise TypeError(f"an array of pyarrow of {str(kind)[:20]!r}")
    places = np.frombuffer(offsets, "<i4" if kind == "string" else "<i8")[: length + 1]
    allowance.take(len(content))
    if len(places) != length + 1 or (np.diff(places) < 0).any() or places[0] < 0 or places[-1] > len(content):
        raise ValueError("an array of pyarrow whose offsets do not fit its bytes")
    return [content[a:b].decode("utf-8") for a, b in pairwise(places.tolist())]


def _columns(frame: Any) -> dict[str, Sequence[Any]]:
    manager = next(
        value
        for name, value in frame.state.items()
        if name in ("_mgr", "_data") and isinstance(value, _Manager)  # _data before pandas 1.1
    )
    names = _sequence(manager.axes[0]["data"])
    columns: dict[str, Sequence[Any]] = {}
    for values, placement in manager.blocks:
        places = range(len(names))[placement] if isinstance(placement, slice) else placement.values.tolist()
        rows = _rows(values, len(places))
        columns.update((str(names[place]), row) for place, row in zip(places, rows, strict=True))
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or len(columns) != len(names):
        raise ValueError(f"{len(names)} columns, of them {len(columns)} with a name of their own, of lengths {lengths}")
    return columns


def _rows(values: Any, count: int) -> Sequence[Sequence[Any]]:
    """The ``count`` columns in a block."""
    if isinstance(values, Objects) and values.items is not None:
        if len(values.shape) != 2 or values.shape[0] != count:
            raise ValueError(f"a block of shape {values.shape} for {count} columns")
        width = values.shape[1]
        return [values.items[k * width : (k + 1) * width] for k in range(count)]
    if isinstance(values, Array):
        if values.values.ndim != 2:
            raise ValueError(f"a block of shape {values.values.shape} for {count} columns")
        return list(values.values)
    return [_sequence(values)]


def _sequence(values: Any) -> Sequence[Any]:
    """The values of an index or of an array of text."""
    if isinstance(values, Objects) and values.items is not None:
        return values.items
    if isinstance(values, Array):
        return list(values.values.reshape(-1))
    if isinstance(values, Record):
        state = values.state if isinstance(values.state, dict) else values.state[0]
        inner = state.get("_pa_array", state.get("_ndarray"))
        if isinstance(inner, list) and all(isinstance(chunk, list) for chunk in inner):
            return [text for chunk in inner for text in chunk]
        return _sequence(inner)
    if isinstance(values, list):
        return values
    raise TypeError(f"a column in a {type(values).__name__}")
