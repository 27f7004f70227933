"""Graph records out of pickles, by a table of the few things that they may hold.

Objects of torch_geometric become inert :class:`Record` objects; NumPy arrays and PyTorch tensors become :class:`Array`,
views of bytes in the pickle whose shape, dtype and strides are held against the number of these bytes. Any other name
is refused with an error that says which. No PyTorch is needed.

The layout of arrays is that of NumPy's ``__reduce__``. A tensor is a storage with sizes and strides; the storage is a
file of ``torch.save`` of before 2020: pickles of a magic number, a version, facts of the machine, the storage's type
and its key, and then an int64 number of elements and their bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.data.errors import DataError
from sdas.data.readers.pickle_machine import Maker, PickleMachine, Stateful, Unsafe

RECORD_MODULES = ("torch_geometric.data.data", "torch_geometric.data.storage")
DTYPES = frozenset(("b1", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))
STORAGES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
}
MOST_LISTED = 100_000
"""Numbers in a value that is a list rather than an array: lists in a pickle can repeat, and unfold to any size."""
Finder = Callable[[tuple[str, str]], Maker | None]
TORCH_MAGIC, TORCH_VERSION = 0x1950A86A20F9469CFC6C, 1001


class Record(Stateful):
    """Stands in for an object of torch_geometric: it keeps the pickled state and does nothing else."""

    def __init__(self) -> None:
        self.state: Any = None

    def set_state(self, state: Any) -> None:
        """Attributes, or (attributes, slots) as pickle writes slotted objects."""
        self.state = state

    def fields(self) -> dict[str, Any]:
        """The fields that are set: of torch_geometric 2, in the mapping of its store; of version 1, attributes."""
        attributes = self._attributes()
        store = attributes.get("_store")
        if isinstance(store, Record):
            attributes = store._attributes()
        mapping = attributes.get("_mapping", attributes)
        named = mapping.items() if isinstance(mapping, dict) else ()
        return {key: v for key, v in named if isinstance(key, str) and not key.startswith("_") and v is not None}

    def _attributes(self) -> dict[Any, Any]:
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


class Array(Stateful):
    """Numbers: a view of bytes in the pickle. ``values`` is read-only, and empty until the state has come."""

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values: NDArray[Any] = np.empty(0, np.uint8) if values is None else values

    def set_state(self, state: Any) -> None:
        """NumPy's state: version, shape, dtype, whether in Fortran's order, bytes."""
        _, shape, dtype, fortran, data = state
        self.values = _array_of(data, dtype, shape, "F" if fortran else "C")


class Dtype(Stateful):
    """A plain numeric type. Of its state only the byte order is taken: NumPy would believe flags and offsets in it."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in DTYPES:
            raise Unsafe("a dtype that is not of plain numbers")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        _, order, *others = state
        if others != [None, None, None, -1, -1, 0] or order not in ("<", ">", "|", "="):
            raise Unsafe("a dtype that is not of plain numbers")
        self.dtype = self.dtype.newbyteorder(order)


class Allowance:
    """Bytes that may be copied while one pickle is read, so that repetition gains nothing."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("it unfolds to more than its own size")


def load_record(data: bytes, where: str) -> Any:
    """The graph record pickled in ``data``; raises :class:`DataError` for any name that it has no use for."""
    return load_pickle(data, where, _graph_names, "graph records")


def load_pickle(data: bytes, where: str, names: Callable[[Allowance], Finder], what: str) -> Any:
    """The object pickled in ``data``, of the ``names`` that ``what`` may hold.

    Raises :class:`DataError` for any name outside of these, and for damage.
    """
    try:
        return PickleMachine(io.BytesIO(data), names(Allowance(2 * len(data)))).load()
    except Unsafe as error:
        raise DataError(
            f"{where}: its pickle names {error}, which is not among the classes of {what}; it was not run"
        ) from None
    except Exception as error:  # damaged pickles fail in every way
        raise DataError(f"{where}: damaged record: {type(error).__name__}: {error}") from None


def numpy_names(allowance: Allowance) -> dict[tuple[str, str], Maker]:
    """What NumPy's arrays and scalars name."""

    def encode(text: str, encoding: str = "latin1") -> bytes:
        """Bytes as pickle protocols 0 to 2 write them, spelled as text in that one encoding."""
        if encoding != "latin1":
            raise Unsafe(f"_codecs.encode to {str(encoding)[:20]!r}")
        allowance.take(len(text))
        return text.encode("latin1")

    table: dict[tuple[str, str], Maker] = {
        ("_codecs", "encode"): encode,
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): no_instance,
    }
    for numpy_core in ("numpy.core", "numpy._core"):
        table[f"{numpy_core}.multiarray", "_reconstruct"] = lambda *_: Array()
        table[f"{numpy_core}.multiarray", "scalar"] = lambda dtype, data: Array(_array_of(data, dtype, (), "C"))
        table[f"{numpy_core}.numeric", "_frombuffer"] = lambda data, dtype, shape, order: Array(
            _array_of(data, dtype, shape, order)
        )
    return table


def _graph_names(allowance: Allowance) -> Finder:
    def storage(data: bytes) -> NDArray[Any]:
        allowance.take(len(data))
        return _storage(data)

    table = numpy_names(allowance) | {
        ("collections", "OrderedDict"): lambda: {},
        ("torch", "Size"): sizes_of,
        ("torch.storage", "_load_from_bytes"): storage,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    }
    return lambda name: (lambda *_: Record()) if name[0] in RECORD_MODULES else table.get(name)


def no_instance(*_: Any) -> Any:
    """For a class that is named as an argument only, as ``numpy.ndarray`` is."""
    raise Unsafe("a call of a class that is an argument elsewhere")


def _array_of(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(data, bytes) or not isinstance(dtype, Dtype):
        raise TypeError("an array of other than plain bytes")
    sizes = sizes_of(shape)
    if math.prod(sizes) * dtype.dtype.itemsize != len(data):
        raise ValueError(f"an array of {len(sizes)} dimensions does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(sizes, order="F" if order == "F" else "C")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Array:
    if not isinstance(storage, np.ndarray):
        raise TypeError("a tensor of no storage")
    sizes, strides, (start,) = sizes_of(size), sizes_of(stride), sizes_of((offset,))
    last = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if 0 in sizes:
        return Array(np.empty(sizes, storage.dtype))
    if last >= len(storage) or math.prod(sizes) > len(storage):
        raise ValueError(f"a tensor of {len(sizes)} dimensions is larger than its storage of {len(storage)} elements")
    steps = tuple(step * storage.itemsize for step in strides)
    view = np.lib.stride_tricks.as_strided(storage[start:], sizes, steps, writeable=False)
    return Array(view)


def sizes_of(values: Any) -> tuple[int, ...]:
    """``values`` as the sizes of an array; raises ValueError if they are none."""
    if not isinstance(values, tuple) or len(values) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in values):
        raise ValueError("sizes that are not a few whole numbers")
    return values


def _storage(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    kinds: list[tuple[str, int]] = []

    def persistent(pid: Any) -> str:
        word, kind, key, _, count, view = pid
        if word != "storage" or view is not None:
            raise Unsafe("a storage that is part of another")
        kinds.append((kind.make(), count))
        return str(key)

    kinds_named = {("torch", name): _constant(code) for name, code in STORAGES.items()}
    magic, version, machine = (PickleMachine(stream, _nothing).load() for _ in range(3))
    if (magic, version, machine.get("little_endian")) != (TORCH_MAGIC, TORCH_VERSION, True):
        raise ValueError("a tensor's storage is not in the format of torch.save")
    key = PickleMachine(stream, kinds_named.get, persistent).load()
    if PickleMachine(stream, _nothing).load() != [key]:
        raise ValueError("a tensor's storage holds other keys than its own")
    ((code, count),) = kinds
    dtype, content = np.dtype(code), data[stream.tell() :]
    stated = int.from_bytes(content[:8], "little")
    if stated != count or len(content) != 8 + count * dtype.itemsize:
        raise ValueError(f"a tensor's storage has {len(content) - 8} bytes, not those of {stated} elements")
    return np.frombuffer(content, dtype, offset=8)


def _constant(value: str) -> Maker:
    return lambda *_: value


def _nothing(name: tuple[str, str]) -> None:
    """The table of pickles that name nothing."""


def numbers_in(value: Any, what: str) -> NDArray[Any]:
    """A value of a record as numbers, called ``what``; lists in it are counted before they are unfolded."""
    if isinstance(value, Array):
        return value.values
    if _leaves(value, MOST_LISTED) > MOST_LISTED:
        raise DataError(f"{what} is a list of more than {MOST_LISTED} numbers; store an array")
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} holds no numbers but a {type(value).__name__}")
    return array


def _leaves(value: Any, most: int, depth: int = 3) -> int:
    """The number of leaves of nested lists; counting ends a little above ``most``, and lists too deep are above it."""
    if not isinstance(value, (list, tuple)):
        return 1
    if depth == 0:
        return most + 1
    count = 0
    for item in value:
        count += _leaves(item, most, depth - 1)
        if count > most:
            break
    return count
