"""Look-up in an LMDB file of foreign origin, by reads that stay inside the file.

The LMDB library maps a file and trusts its pages: a file cut short ends the process (SIGBUS), and page numbers and
offsets in it are addresses. Here pages are read as bytes and every number in them is held against what is there.

Format (LMDB 0.9, data version 1, little endian, 64 bit): two meta pages, of which that of the newer transaction counts,
name the root of a B+ tree. A page has a header of 16 bytes and the offsets of its nodes in the order of their keys. A
node has a size (in branches a page number), flags, and a key before its value. Large values lie on pages of their own.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from sdas.data.errors import DataError

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = 16
META = struct.Struct("<IIQQ48sIHHQQQQQQQ")
"""magic, version, address, map size, table of free pages; page size of the main table left out, flags, depth, numbers
of branch, leaf and overflow pages, entries, root; last page, transaction."""
BRANCH, LEAF, OVERFLOW = 0x01, 0x02, 0x04
BIG_VALUE, TABLE_VALUE = 0x01, 0x06
MOST_LEVELS = 32
PAGE_SIZES = (1 << 9, 1 << 16)


@dataclass(frozen=True)
class _Meta:
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


class LmdbFile:
    """An open LMDB file with one table. Raises :class:`DataError` for one that is cut short, damaged or other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._size = os.fstat(self._descriptor).st_size
            self._page_size = self._find_page_size()
            metas = [self._read_meta(page * self._page_size) for page in (0, 1)]
            self._meta = max(metas, key=lambda meta: meta.transaction)
            self.entries = self._meta.entries
            """Number of keys."""
            needed = (self._meta.last_page + 1) * self._page_size
            if needed > self._size:
                raise DataError(
                    f"{path}: not a complete LMDB file: it has {self._size} bytes, its pages need {needed}; was it cut "
                    "short in copying?"
                )
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> LmdbFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        number = self._meta.root
        if self.entries == 0:
            return None
        for _ in range(min(self._meta.depth, MOST_LEVELS)):
            page, flags, nodes = self._page(number)
            if flags & LEAF:
                return self._value_in(page, nodes, key)
            if not flags & BRANCH or not nodes:
                break
            number = self._child(page, nodes, key)
        raise self._damaged(f"page {number} is neither branch nor leaf of the tree")

    def _value_in(self, page: bytes, nodes: tuple[int, ...], key: bytes) -> bytes | None:
        index = self._first_not_below(page, nodes, key, 0)
        if index == len(nodes) or self._key(page, nodes[index]) != key:
            return None
        low, high, flags, key_size = self._node(page, nodes[index])
        start, size = nodes[index] + 8 + key_size, low | high << 16
        if flags & TABLE_VALUE:
            raise self._damaged("it holds tables within tables, which graph records have no use for")
        if not flags & BIG_VALUE:
            if start + size > len(page):
                raise self._damaged("a value reaches beyond its page")
            return page[start : start + size]
        (number,) = struct.unpack("<Q", self._within(page, start, 8))
        _, _, kind, count = struct.unpack("<QHHI", self._read(number * self._page_size, HEADER))
        if kind != OVERFLOW or HEADER + size > count * self._page_size or number + count > self._meta.last_page + 1:
            raise self._damaged("a large value reaches beyond its pages")
        return self._read(number * self._page_size + HEADER, size)

    def _child(self, page: bytes, nodes: tuple[int, ...], key: bytes) -> int:
        """The page below on which ``key`` would be: that of the last node whose key is not above it."""
        index = self._first_not_below(page, nodes, key, 1)
        if index == len(nodes) or self._key(page, nodes[index]) != key:
            index -= 1
        low, high, upper, _ = self._node(page, nodes[index])
        return low | high << 16 | upper << 32

    def _first_not_below(self, page: bytes, nodes: tuple[int, ...], key: bytes, first: int) -> int:
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(page, nodes[middle]) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """Bytes, flags and offsets of nodes of a page of the tree."""
        if number > self._meta.last_page:
            raise self._damaged(f"page {number} is beyond the last one, {self._meta.last_page}")
        page = self._read(number * self._page_size, self._page_size)
        _, _, flags, lower, _ = struct.unpack_from("<QHHHH", page)
        count = (lower - HEADER) // 2
        if not 0 <= count <= (self._page_size - HEADER) // 2:
            raise self._damaged(f"page {number} has an impossible number of nodes")
        return page, flags, struct.unpack_from(f"<{count}H", page, HEADER)

    def _node(self, page: bytes, offset: int) -> tuple[int, int, int, int]:
        low, high, flags, key_size = struct.unpack("<HHHH", self._within(page, offset, 8))
        return low, high, flags, key_size

    def _key(self, page: bytes, offset: int) -> bytes:
        return self._within(page, offset + 8, self._node(page, offset)[3])

    def _within(self, page: bytes, start: int, size: int) -> bytes:
        if start + size > len(page):
            raise self._damaged("a node reaches beyond its page")
        return page[start : start + size]

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            raise self._damaged("a page lies beyond its end")
        data = os.pread(self._descriptor, size, start)
        if len(data) < size:
            raise self._damaged("it became shorter while it was read")
        return data

    def _find_page_size(self) -> int:
        """From the first meta page; the second follows it."""
        (size,) = struct.unpack_from("<I", self._read_meta_bytes(0), HEADER + 24)
        if not PAGE_SIZES[0] <= size <= PAGE_SIZES[1] or size & (size - 1):
            raise DataError(f"{self.path}: not a complete LMDB file: its pages cannot have {size} bytes")
        return int(size)

    def _read_meta(self, start: int) -> _Meta:
        (*_, depth, _, _, _, entries, root, last_page, transaction) = META.unpack_from(
            self._read_meta_bytes(start), HEADER
        )
        return _Meta(depth, entries, root, last_page, transaction)

    def _read_meta_bytes(self, start: int) -> bytes:
        data = os.pread(self._descriptor, HEADER + META.size, start)
        if len(data) < HEADER + META.size or struct.unpack_from("<II", data, HEADER) != (MAGIC, VERSION):
            raise DataError(f"{self.path}: not a complete LMDB file: it has no meta page at byte {start}")
        return data

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self.path}: damaged LMDB file: {reason}")
