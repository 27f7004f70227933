"""Total charge and spin of the systems in a graph: checked, and joined for a batch.

charge is in e, spin the multiplicity 2S + 1. None stands for neutral systems and for singlets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sdas_kernels.arguments import FLOATING, INTEGERS, dense_tensor, has_values

OWNER = "NeighborGraph"
USUAL = {"charge": 0.0, "spin": 1.0}
"""Of a neutral singlet."""


def of_one_system(charge: Any, spin: Any) -> dict[str, torch.Tensor | None]:
    """``charge`` and ``spin`` `[1]`, float64, of numbers or None.

    Raises `TypeError` for what is no number, `ValueError` for one that is not finite, or a spin below 1.
    """
    states: dict[str, torch.Tensor | None] = {}
    for name, given in (("charge", charge), ("spin", spin)):
        try:
            number = None if given is None else float(given)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise TypeError(f"{OWNER}: {name} must be a number, got {given!r}") from None
        if number is not None:
            _check_values(name, number, number)
        states[name] = None if number is None else torch.tensor([number], dtype=torch.float64, device="cpu")
    return states


def checked(name: str, given: Any, positions: torch.Tensor, systems: int) -> torch.Tensor | None:
    """Charges or spins `[B]` in the dtype of positions, or None. Raises `TypeError` or `ValueError`."""
    if given is None:
        return None
    dense_tensor(OWNER, name, given)
    if given.dtype not in (*FLOATING, *INTEGERS):
        raise TypeError(f"{OWNER}: {name} must be numbers, got {given.dtype}")
    if given.shape != (systems,):
        raise ValueError(f"{OWNER}: {name} must be [{systems}] for {systems} cells, got {list(given.shape)}")
    if given.device != positions.device:
        raise ValueError(f"{OWNER}: {name} is on {given.device} but positions is on {positions.device}")
    if has_values(given) and systems:
        _check_values(name, *torch.stack(given.double().aminmax()).tolist())
    return given.to(positions.dtype).resolve_neg().contiguous()


def joined(name: str, graphs: Sequence[Any]) -> torch.Tensor | None:
    """Charges or spins of all systems of graphs, the usual ones of graphs without any; None if no graph has any."""
    if all(getattr(graph, name) is None for graph in graphs):
        return None
    return torch.cat([of_systems(name, graph) for graph in graphs])


def of_systems(name: str, graph: Any) -> torch.Tensor:
    """Charges or spins `[B]` of a graph, the usual ones if it has none."""
    states: torch.Tensor | None = getattr(graph, name)
    return graph.cells.new_full((len(graph.cells),), USUAL[name]) if states is None else states


def unusual(graph: Any) -> str | None:
    """The first charge or spin of a graph that no neutral singlet has, in words; None if there is none."""
    for name, usual in USUAL.items():
        states = getattr(graph, name)
        if states is not None and bool((states != usual).any()):
            return f"{name} {states[states != usual][0].item():g}"
    return None


def _check_values(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{OWNER}: {name} must be finite, got {low if not math.isfinite(low) else high}")
    if name == "spin" and low < 1:
        raise ValueError(f"{OWNER}: spin is the multiplicity 2S + 1, so at least 1, got {low:g}")
