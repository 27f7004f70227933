"""A stack machine for the few pickle opcodes that plain records need; it imports, calls and allocates nothing itself.

Python's own unpickler calls whatever a pickle names, and hands the pickle's words to C code that trusts them. Here the
opcodes come from :func:`pickletools.genops`, which only reads, and act on plain values: None, bool, int, float, str,
bytes, tuple, list, dict with plain keys, and what the functions in a table make. So the values take no more memory than
a fixed multiple of the pickle: an opcode adds references or its own bytes, never a copy of what another one made.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, Protocol

LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8""".split()  # noqa: SIM905
)
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = frozenset(("PROTO", "FRAME", "STOP"))
KEYS = (str, int)
"""Types of the keys of dictionaries: hashing deep tuples would exhaust the stack."""
MOST_ARGUMENTS = 10


class Unsafe(Exception):
    """Something in a pickle that graph records have no use for; the message says what."""


class Maker(Protocol):
    """Makes a value from the arguments of a call in the pickle."""

    def __call__(self, *arguments: Any) -> Any: ...


class Stateful:
    """A value whose state comes in a later opcode."""

    def set_state(self, state: Any) -> None:
        """Take the state that the pickle stores."""
        raise NotImplementedError


class Named:
    """A name in the pickle, and what makes a value of it. It can be called in the pickle, and no more."""

    def __init__(self, make: Maker) -> None:
        self.make = make


class PickleMachine:
    """Reads one pickle from ``stream``. ``find``: (module, name) → function that makes a value, or None to refuse.
    ``persistent``: what makes a value from a persistent id, refused without it."""

    def __init__(
        self,
        stream: IO[bytes],
        find: Callable[[tuple[str, str]], Maker | None],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._stream, self._find, self._persistent = stream, find, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value; raises :class:`Unsafe`, or whatever a damaged pickle leads to."""
        for opcode, argument, _ in pickletools.genops(self._stream):
            self._run(opcode.name, argument)
        (value,) = self._stack
        return value

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in LITERALS:
            stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name in TUPLES:
            count = TUPLES[name]
            items = tuple(stack[-count:])
            if len(items) < count:
                raise IndexError("stack is too short")
            stack[-count:] = [items]
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("TUPLE", "LIST", "DICT"):
            values = self._since_mark()
            stack.append(tuple(values) if name == "TUPLE" else values if name == "LIST" else _pairs(values))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "APPEND":
            value = stack.pop()
            _expect(stack[-1], list).append(value)
        elif name == "APPENDS":
            values = self._since_mark()
            _expect(stack[-1], list).extend(values)
        elif name == "SETITEM":
            pair = [stack.pop(-2), stack.pop()]
            _expect(stack[-1], dict).update(_pairs(pair))
        elif name == "SETITEMS":
            values = self._since_mark()
            _expect(stack[-1], dict).update(_pairs(values))
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(self._named(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute = stack.pop()
            stack.append(self._named(_expect(stack.pop(), str), _expect(attribute, str)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = _expect(stack.pop(), tuple)
            if len(arguments) > MOST_ARGUMENTS:
                raise TypeError(f"a call with {len(arguments)} arguments")
            stack.append(_expect(stack.pop(), Named).make(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            _expect(stack[-1], Stateful).set_state(state)
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(stack.pop()))
        elif name not in IGNORED:
            raise Unsafe(f"the opcode {name}")

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _named(self, module: str, name: str) -> Named:
        make = self._find((module, name))
        if make is None:
            raise Unsafe(f"{module}.{name}"[:80].encode("unicode_escape").decode())
        return Named(make)


def _pairs(values: list[Any]) -> dict[Any, Any]:
    for key in values[::2]:
        _expect(key, KEYS)
    return dict(zip(values[::2], values[1::2], strict=True))


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} in the wrong place")
    return value
