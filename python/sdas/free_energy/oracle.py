"""Forces of an oracle of labels, so that a reference can move replicas: one calculation per replica and step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from sdas.config.label import ResourcesConfig, parse_oracle
from sdas.data.frame import Frame
from sdas.errors import SdasError
from sdas.label.oracle import Failure, make_oracle, outcome_of
from sdas.md.forces import Results
from sdas.md.systems import Systems


class OracleForces:
    """Energies and forces as `sdas label` computes them.

    Args:
        word: as `--oracle` of `sdas label`, such as tblite:GFN2-xTB.
        settings: its settings.
    """

    invariant = True

    def __init__(self, word: str, settings: dict[str, Any] | None = None) -> None:
        self.oracle = make_oracle(parse_oracle(word, settings or {}), ResourcesConfig().memory_mib)
        self.fingerprint = json.dumps(dict(self.oracle.method), sort_keys=True)

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """See :class:`sdas.md.forces.Forces`; raises SdasError where the oracle gives no label, and for a stress."""
        if stress:
            raise SdasError("an oracle moves replicas at constant volume only")
        labels = [outcome_of(self.oracle, self.oracle.prepared(frame_of(systems, row))) for row in range(len(systems))]
        energies, forces = [], []
        for label in labels:
            if isinstance(label, Failure):
                raise SdasError(f"{self.fingerprint}: {label.reason}")
            energies.append(label.energy)
            forces.append(label.forces)
        return {
            "energy": torch.tensor(energies, dtype=torch.float64),
            "forces": torch.from_numpy(np.concatenate(forces)),
        }


def frame_of(systems: Systems, row: int) -> Frame:
    """One of the systems as a frame without labels."""
    span = systems.span(row)
    state, periodic = systems.states[row], bool(systems.pbc[row].any())
    return Frame(
        numbers=systems.numbers[span].cpu().numpy(),
        positions=systems.positions[span].cpu().numpy().copy(),
        cell=systems.cells[row].cpu().numpy().copy() if periodic else None,
        pbc=systems.pbc[row].cpu().numpy(),
        energy=None,
        forces=None,
        stress=None,
        source=f"replica {int(systems.replica[row])}",
        charge=state.get("charge"),
        spin=state.get("spin"),
    )
