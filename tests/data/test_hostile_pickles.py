"""A pickle in an LMDB file cannot read memory, take more of it than a multiple of its size, or exhaust the stack."""

from __future__ import annotations

import importlib.util
import pickle
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from sdas.data import DataError
from sdas.data.readers.restricted_pickle import load_record

lmdb = pytest.importorskip("lmdb", reason="the LMDB tests need the package lmdb")
_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)


def text(words: str) -> bytes:
    data = words.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(12, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def blob(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def tupled(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tupled(*arguments) + b"R"


NONE, FALSE = b"N", b"\x89"
DTYPE = name("numpy", "dtype")
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
SCALAR = name("numpy.core.multiarray", "scalar")
BUFFER = name("numpy.core.numeric", "_frombuffer")
TENSOR = name("torch._utils", "_rebuild_tensor_v2")


def dtype(code: str, state: bytes = b"") -> bytes:
    return call(DTYPE, text(code), FALSE, b"\x88") + (state + b"b" if state else b"")


PLAIN = tupled(number(3), text("<"), NONE, NONE, NONE, number(-1), number(-1), number(0))
OBJECTS = tupled(number(3), text("|"), NONE, NONE, NONE, number(-1), number(-1), number(63))
BEYOND = tupled(
    number(3), text("|"), NONE, tupled(text("a")), b"}" + text("a") + tupled(dtype("i8"), number(1 << 40)) + b"s",
    number(8), number(1), number(0),
)  # fmt: skip
SUBARRAY = tupled(
    number(3), text("|"), tupled(dtype("i8"), tupled(number(1 << 40))), NONE, NONE, number(8), number(1), number(0)
)


def array(kind: bytes, shape: bytes, data: bytes) -> bytes:
    start = call(RECONSTRUCT, name("numpy", "ndarray"), tupled(number(0)), blob(b"b"))
    return start + tupled(number(1), shape, kind, FALSE, blob(data)) + b"b"


def saved(count: int, data: bytes, kind: str = "FloatStorage", stated: int | None = None) -> bytes:
    """A file of ``torch.save`` that holds a storage."""
    head = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    pid = tupled(text("storage"), name("torch", kind), text("0"), text("cpu"), number(count), NONE)
    size = struct.pack("<q", count if stated is None else stated)
    return b"".join(head) + b"\x80\x02" + pid + b"Q." + pickle.dumps(["0"], 2) + size + data


def storage(count: int, data: bytes, kind: str = "FloatStorage", stated: int | None = None) -> bytes:
    return call(name("torch.storage", "_load_from_bytes"), blob(saved(count, data, kind, stated)))


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...], kept: bytes | None = None) -> bytes:
    kept = storage(4, bytes(16)) if kept is None else kept
    sizes = [tupled(*(number(n) for n in values)) for values in (size, stride)]
    return call(TENSOR, kept, number(offset), *sizes, FALSE, call(name("collections", "OrderedDict")))


def nested_lists(levels: int, width: int) -> bytes:
    """Lists of one list each, ``width`` times, in tuples that keep the inner ones: width ** levels numbers."""
    lists = b"](" + b"K\x01" * width + b"eq\x00"
    for level in range(1, levels):
        lists += b"](" + b"h" + bytes([level - 1]) + (b"h" + bytes([level - 1])) * (width - 1) + b"eq" + bytes([level])
    return b"(" + lists + b"t"


def repeated(first: bytes, again: bytes, times: int) -> bytes:
    """A list of what ``again`` makes of what ``first`` made and the memo keeps under 1."""
    return b"(" + first + b"q\x01](" + again * times + b"et"


LONG_TEXT = text("x" * 100_000)
FIELDS = {  # what stands for a field of the record, here its positions
    "flags of objects": array(dtype("i8", OBJECTS), tupled(number(2)), b"\x41" * 16),
    "flags of objects in a scalar": call(SCALAR, dtype("i8", OBJECTS), blob(b"\x41" * 8)),
    "flags of objects in a buffer": call(BUFFER, blob(b"\x41" * 8), dtype("i8", OBJECTS), tupled(number(1)), text("C")),
    "an object dtype": array(dtype("O8"), tupled(number(2)), b"\x41" * 16),
    "a field beyond the item": array(dtype("V8", BEYOND), tupled(number(1)), b"\x41" * 8),
    "a field beyond the item of plain numbers": array(dtype("i8", BEYOND), tupled(number(1)), b"\x41" * 8),
    "a huge subarray": array(dtype("i8", SUBARRAY), tupled(number(1)), b"\x41" * 8),
    "a huge item": array(dtype("V2000000000"), tupled(number(0)), b""),
    "huge text": array(dtype("U500000000"), tupled(number(0)), b""),
    "a huge shape": array(dtype("i8"), tupled(number(1 << 40)), bytes(8)),
    "a shape that overflows": array(dtype("i8"), tupled(number(1 << 62), number(4)), b""),
    "a negative shape": array(dtype("i8"), tupled(number(-1)), bytes(8)),
    "a shape of another size": array(dtype("i8", PLAIN), tupled(number(3)), bytes(8)),
    "a short scalar": call(SCALAR, dtype("f8"), blob(b"")),
    "an array on request": call(name("numpy", "ndarray"), tupled(number(1 << 31)), dtype("u1")),
    "an array at an offset": call(
        name("numpy", "ndarray"), tupled(number(1 << 20)), dtype("u1"), blob(bytes(8)), number(-(1 << 30))
    ),
    "a tensor beyond its storage": tensor(0, (1 << 20,), (1,)),
    "a tensor of long strides": tensor(0, (2, 2), (1 << 30, 1)),
    "a tensor of negative strides": tensor(3, (4,), (-(1 << 30),)),
    "a tensor before its storage": tensor(-(1 << 30), (4,), (1,)),
    "a tensor that repeats one element": tensor(0, (1 << 40,), (0,)),
    "a storage of fewer bytes": tensor(0, (4,), (1,), storage(1 << 40, bytes(16))),
    "a storage that states fewer bytes": tensor(0, (4,), (1,), storage(4, bytes(16), stated=1 << 40)),
    "a storage of negative size": tensor(0, (4,), (1,), storage(-4, bytes(16))),
    "lists that repeat lists": nested_lists(6, 60),
    "a list in itself": b"]q\x00h\x00a",
    "a text encoded again and again": repeated(
        LONG_TEXT, name("_codecs", "encode") + b"h\x01" + text("latin1") + b"\x86R", 20_000
    ),
    "a list made a tuple again and again": repeated(
        b"](" + b"K\x01" * 50_000 + b"e", name("torch", "Size") + b"h\x01\x85R", 20_000
    ),
    "a dictionary copied again and again": repeated(
        b"}(" + b"".join(b"J" + struct.pack("<i", k) + b"N" for k in range(20_000)) + b"u",
        name("collections", "OrderedDict") + b"h\x01\x85R", 10_000
    ),
    "a storage opened again and again": repeated(
        blob(saved(25_000, bytes(100_000))), name("torch.storage", "_load_from_bytes") + b"h\x01\x85R", 10_000
    ),
    "deep tuples": b"N" + b"\x85" * 500_000,
    "deep lists": b"]" * 300_000 + b"a" * 299_999,
    "deep tuples as a key": b"}N" + b"\x85" * 300_000 + b"Ns",
    "a long integer": b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000,
    "a long integer in decimals": b"L" + b"9" * 200_000 + b"L\n",
    "a far place of the memo": b"Nr\xff\xff\xff\xff",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 62),
    "a byte array that is not there": b"\x96" + struct.pack("<Q", 1 << 40),
    "text that is not there": b"\x8d" + struct.pack("<Q", 1 << 40),
    "a frame that is not there": b"\x95" + struct.pack("<Q", 1 << 60) + b"N",
    "a buffer out of band": b"\x97",
    "a persistent id": text("x") + b"Q",
    "a registered extension": b"\x82\x01",
    "an old instance": b"(iposix\nsystem\n",
    "an object of arguments": name("numpy", "dtype") + b")}\x92",
    "an empty stack": b"0000R",
    "a state of what has none": text("pos") + b"}b",
    "a name of a name": call(call(DTYPE, text("i8")), text("i8")),
}  # fmt: skip


def record_with(field: bytes) -> bytes:
    """A record with this field as its positions, and with numbers that are right."""
    atoms = array(dtype("i8", PLAIN), tupled(number(2)), np.array([1, 8], "<i8").tobytes())
    return b"\x80\x02}(" + text("atomic_numbers") + atoms + text("pos") + field + b"u."


def test_such_records_are_read_when_they_are_sound():
    for kind, data in (("f8", np.arange(6.0)), ("f4", np.arange(6, dtype="f4")), ("i8", np.arange(6))):
        record = load_record(
            record_with(array(dtype(kind, PLAIN), tupled(number(2), number(3)), data.tobytes())), "here"
        )
        np.testing.assert_array_equal(record["pos"].values, data.reshape(2, 3))
    kept = storage(4, np.arange(4, dtype="f4").tobytes())
    record = load_record(record_with(tensor(1, (2, 1), (2, 1), kept)), "here")
    assert record["pos"].values.tolist() == [[1.0], [3.0]]


def test_hostile_records_are_refused_in_little_memory(tmp_path):
    paths = []
    for index, (case, field) in enumerate(FIELDS.items()):
        paths.append(tmp_path / f"{index:02d} {case}.lmdb")
        with (
            lmdb.open(str(paths[-1]), subdir=False, map_size=1 << 26) as environment,
            environment.begin(write=True) as put,
        ):
            put.put(b"0", record_with(field))
    outcomes = hostile.read_in_a_process(paths)
    accepted = {path: outcome for path, outcome in outcomes.items() if not outcome.startswith("refused: ")}
    assert not accepted
    assert not [path for path, outcome in outcomes.items() if "MemoryError" in outcome or "RecursionError" in outcome]


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("seed", range(5))
def test_no_change_of_a_byte_does_more_than_refuse_or_change_a_number(seed):
    """Whatever byte of a sound record is changed, reading ends, in a value or in an error of ours."""
    rng = np.random.default_rng(seed)
    sound = record_with(tensor(0, (2, 2), (2, 1), storage(4, np.arange(4, dtype="f4").tobytes())))
    for place in rng.integers(len(sound), size=300):
        changed = bytearray(sound)
        changed[place] = rng.integers(256)
        with suppress(DataError):
            load_record(bytes(changed), "here")
