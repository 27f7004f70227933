"""From a frame to the graph that a model takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from ase.data import chemical_symbols

from sdas.data.frame import Frame
from sdas.errors import SdasError
from sdas_kernels.graph import NeighborGraph


def graph_of(frame: Frame, cutoff: float, dtype: torch.dtype) -> NeighborGraph:
    """The neighbors of every atom of a frame within the cutoff (Å), on the CPU.

    The graph holds copies: a tensor must not share a read-only map.
    """
    cell = None if frame.cell is None else frame.cell.copy()
    return NeighborGraph.build(frame.positions.copy(), frame.numbers.copy(), cutoff, cell, frame.pbc, dtype)


def refuse_unknown(numbers: Iterable[int], species: Iterable[int], where: str, advice: str) -> None:
    """Raise SdasError if a structure of these atomic numbers has elements that are not among a model's `species`.

    The message begins with `where` and ends in `advice`, in which {names} stands for those elements.
    """
    known = set(species)
    strange = set(numbers) - known
    if strange:
        names = _symbols(strange)
        raise SdasError(
            f"{where}the model does not know {names}; it was trained on {_symbols(known)}{advice.format(names=names)}"
        )


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))
