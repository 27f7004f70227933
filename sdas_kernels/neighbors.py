"""Neighbors of atoms: what a caller gives, checked and made arrays, and every pair closer than the cutoff."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from sdas_kernels.arguments import dense_tensor, has_values, positive_length

MIN_DISTANCE = 1e-4  # Å; closer atoms are taken for a mistake in the input


class Neighbors(NamedTuple):
    """positions [n, 3], numbers [n], cell [3, 3], pbc [3], cutoff; receivers, senders [E], shifts [E, 3], sorted."""

    positions: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    cutoff: float
    receivers: torch.Tensor
    senders: torch.Tensor
    shifts: torch.Tensor


def find_neighbors(positions: Any, numbers: Any, cutoff: Any, cell: Any, pbc: Any) -> Neighbors:
    """As `NeighborGraph.build` wants its arguments; float64, and no array is the caller's.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or shape, not finite, or two atoms overlap.
    """
    cutoff = positive_length("NeighborGraph", "cutoff", cutoff)
    r, z = _floats("positions", positions), _whole_numbers(numbers)
    _check_atoms(r, z)
    box, periodic = _check_cell(cell, pbc)
    return Neighbors(r.copy(), z, box.copy(), periodic, cutoff, *_find_pairs(r, box, periodic, cutoff))


def _floats(name: str, value: Any) -> np.ndarray:
    """Real numbers, float64, contiguous."""
    array = _array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"NeighborGraph: {name} must be real numbers, got {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float64)


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        dense_tensor("NeighborGraph", name, value)
        if not has_values(value):
            raise ValueError(f"NeighborGraph: {name} must have numbers, got a tensor on {value.device} without")
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = (value.double() if value.is_floating_point() else value).numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"NeighborGraph: {name} is no array: {error}") from None


def _whole_numbers(numbers: Any) -> np.ndarray:
    z = _floats("numbers", numbers)
    fractions = z[z != np.round(z)]
    if len(fractions):
        raise ValueError(f"NeighborGraph: numbers must be whole, got {fractions[0]:g}")
    return z.astype(np.int64)


def _check_atoms(r: np.ndarray, z: np.ndarray) -> None:
    if r.ndim != 2 or r.shape[1] != 3 or len(r) == 0:
        raise ValueError(f"NeighborGraph: positions must be [n, 3] with n >= 1, got {list(r.shape)}")
    if z.shape != (len(r),):
        raise ValueError(f"NeighborGraph: numbers must be [{len(r)}] as positions has, got {list(z.shape)}")
    if not np.isfinite(r).all():
        atom = int(np.argwhere(~np.isfinite(r).all(1))[0, 0])
        raise ValueError(f"NeighborGraph: the position of atom {atom} is {r[atom].tolist()}, not finite")
    if z.min() < 1 or z.max() > 118:
        raise ValueError(f"NeighborGraph: atomic numbers must be 1..118, got {int(z.min())}..{int(z.max())}")


def _check_cell(cell: Any, pbc: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cell `[3, 3]` with zeros where there is none, and three bools."""
    box = np.zeros((3, 3)) if cell is None else _floats("cell", cell)
    if box.shape == (3,):
        box = np.diag(box)
    if box.shape != (3, 3) or not np.isfinite(box).all():
        raise ValueError(f"NeighborGraph: cell must be [3, 3] and finite, got {box.tolist()}")
    periodic = np.asarray(bool(box.any()) if pbc is None else _array("pbc", pbc).astype(bool))
    if periodic.shape not in ((), (1,), (3,)):
        raise ValueError(f"NeighborGraph: pbc must be one bool or three, got {periodic.tolist()}")
    periodic = np.array(np.broadcast_to(periodic, (3,)))
    if periodic.any() and np.linalg.matrix_rank(box[periodic]) < periodic.sum():
        raise ValueError(f"NeighborGraph: pbc is {periodic.tolist()} but the cell {box.tolist()} is degenerate there")
    return box, periodic


def _find_pairs(
    r: np.ndarray, box: np.ndarray, periodic: np.ndarray, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Receivers and senders `[E]`, cell shifts `[E, 3]`, sorted by receiver, then sender, then shift."""
    from vesin import NeighborList  # brings ASE and CuPy with it where they are installed

    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=False, n_threads=1)
    i, j, shifts, d = finder.compute(r, box, periodic, quantities="ijSd")
    if len(d) and d.min() < MIN_DISTANCE:
        worst = int(d.argmin())
        raise ValueError(
            f"NeighborGraph: atoms {int(i[worst])} and {int(j[worst])} overlap: they are {d[worst]:.2g} Å apart "
            f"(at least {MIN_DISTANCE:g} Å is needed)"
        )
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, i))
    index = [torch.from_numpy(np.ascontiguousarray(a[order]).astype(np.int64)) for a in (i, j)]
    return index[0], index[1], torch.from_numpy(shifts[order].astype(np.float64))
