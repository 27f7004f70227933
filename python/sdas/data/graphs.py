"""From a frame to the graph that a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ase.data import chemical_symbols

from sdas.data.electronic_states import checked_state
from sdas.data.frame import Frame
from sdas.errors import SdasError
from sdas_kernels.graph import NeighborGraph


def graph_of(frame: Frame, cutoff: float, dtype: torch.dtype, charge_spin: bool = False) -> NeighborGraph:
    """The neighbors of every atom of a frame within the cutoff (Å), on the CPU; with charge and spin if wanted.

    The graph holds copies: a tensor must not share a read-only map. Raises `DataError` for a spin that cannot be.
    """
    cell = None if frame.cell is None else frame.cell.copy()
    state = checked_state(frame.state, frame.numbers, frame.source) if charge_spin else {}
    positions, numbers = frame.positions.copy(), frame.numbers.copy()
    return NeighborGraph.build(positions, numbers, cutoff, cell, frame.pbc, dtype, **state)


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


def refuse_untrained(state: Mapping[str, float], model: Any, where: str) -> None:
    """Raise SdasError if a structure is in a state of a kind that no frame has trained in a model with `charge_spin`.

    The message begins with `where`.
    """
    part = model.electronic.untrained(state.get("charge", 0.0), state.get("spin", 1.0))
    if part is not None:
        raise SdasError(f"{where}the model does not know {part}: no frame that it was trained on has any")


def knows_states(model: Any) -> bool:
    """Whether a model takes charge and spin of a graph, as SDAS does with `charge_spin`."""
    return getattr(model, "electronic", None) is not None


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))
