"""Pieces of the tile A_i[m1, m2] that fit in a GPU thread's registers, and the coefficients that leave each piece.

A path (l1, l2, l3) reads the block [l1, l2] of the tile and no other, so every row of z belongs to one block. A kernel
that holds some whole blocks writes its rows of z alone: pieces need no sum over one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sdas_kernels.paths import Paths, coupling


@dataclass(frozen=True, eq=False)
class Piece:
    """Some blocks [l1, l2] of the tile, as a kernel unrolls them.

    Compared and hashed by identity, so that a launch does not hash its coefficients; pieces are made once per `Paths`.
    Its `repr`, with every coefficient, is part of the name under which a compiled kernel is kept.
    """

    m1: tuple[int, ...]  # rows of the value
    m2: tuple[int, ...]  # orders of the harmonics
    l2: tuple[int, ...]  # degree of each of m2
    pairs: tuple[tuple[int, int], ...]  # the piece of the tile: places in m1 and m2
    rows: tuple[int, ...]  # rows of z
    of_row: tuple[tuple[tuple[int, float], ...], ...]  # for each of rows: (place in pairs, coefficient)
    of_pair: tuple[tuple[tuple[int, float], ...], ...]  # for each of pairs: (row of z, coefficient)


@cache
def tile_pieces(paths: Paths, budget: int) -> tuple[Piece, ...]:
    """All blocks of all paths, up to `budget` numbers of the tile per piece; a larger block is a piece alone."""
    pieces: list[list[tuple[int, int]]] = []
    size = budget
    for l1, l2 in sorted({path[:2] for path in paths.all}):
        block = (2 * l1 + 1) * (2 * l2 + 1)
        if size + block > budget:
            pieces.append([])
            size = 0
        pieces[-1].append((l1, l2))
        size += block
    return tuple(_piece(paths, blocks, sorted({l1 for l1, _ in blocks})) for blocks in pieces)


@cache
def sender_pieces(paths: Paths, budget: int) -> tuple[Piece, ...]:
    """Every row m1 in one piece, with all its blocks; up to `budget` coefficients unless one degree has more."""
    pieces: list[list[int]] = []
    size = budget
    for l1 in range(paths.lmax_in + 1):
        count = int(coupling(paths)[:, l1**2 : (l1 + 1) ** 2].count_nonzero())
        if not pieces or size + count > budget:
            pieces.append([])
            size = 0
        pieces[-1].append(l1)
        size += count
    blocks = sorted({path[:2] for path in paths.all})
    return tuple(_piece(paths, [b for b in blocks if b[0] in degrees], degrees) for degrees in pieces)


def _piece(paths: Paths, blocks: list[tuple[int, int]], degrees: list[int]) -> Piece:
    m1 = [m for l1 in degrees for m in range(l1**2, (l1 + 1) ** 2)]
    l2 = [l for l in sorted({l2 for _, l2 in blocks}) for _ in range(2 * l + 1)]
    m2 = [m for l in sorted({l2 for _, l2 in blocks}) for m in range(l**2, (l + 1) ** 2)]
    pairs = [
        (m1.index(a), m2.index(b))
        for l1, l2_of in blocks
        for a in range(l1**2, (l1 + 1) ** 2)
        for b in range(l2_of**2, (l2_of + 1) ** 2)
    ]
    table = coupling(paths)
    of_pair = [_entries(table[:, m1[a], m2[b]].tolist()) for a, b in pairs]
    rows = sorted({row for entries in of_pair for row, _ in entries})
    of_row = [_entries([float(table[row, m1[a], m2[b]]) for a, b in pairs]) for row in rows]
    return Piece(tuple(m1), tuple(m2), tuple(l2), tuple(pairs), tuple(rows), tuple(of_row), tuple(of_pair))


def _entries(column: list[float]) -> tuple[tuple[int, float], ...]:
    """Place and value of what is not zero."""
    return tuple((place, value) for place, value in enumerate(column) if value)
