"""Systems side by side, as a batched integrator moves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from ase import Atoms

from sdas.data.electronic_states import state_of_atoms
from sdas.errors import SdasError
from sdas_kernels.electronic_states import USUAL
from sdas_kernels.segment import Segments, segment_sum


@dataclass
class Systems:
    """B systems of N atoms in all; the atoms of a system lie together. Positions and cells are float64.

    numbers [N], masses [N] u, positions [N, 3] Å (never wrapped into the cell), cells [B, 3, 3] Å (zeros where nothing
    is periodic), pbc [B, 3], system [N]: the row of each atom's system. replica [B]: the number that each system has
    among the replicas of a run, which it keeps when others end. states: charge and spin of each system, where stated.
    """

    numbers: torch.Tensor
    masses: torch.Tensor
    positions: torch.Tensor
    cells: torch.Tensor
    pbc: torch.Tensor
    system: torch.Tensor
    replica: torch.Tensor
    states: list[dict[str, float]]
    starts: list[int]
    """The first atom of each system, and N."""

    @classmethod
    def of(cls, atoms: Sequence[Atoms], device: torch.device | str = "cpu") -> Systems:
        """Copies of structures; raises SdasError if there is none, or one is empty."""
        sizes = [len(each) for each in atoms]
        if not sizes or min(sizes) == 0:
            raise SdasError(f"systems: wants at least one structure with atoms, got sizes {sizes}")

        def joined(arrays: list[Any], dtype: torch.dtype) -> torch.Tensor:
            return torch.as_tensor(np.concatenate(arrays), dtype=dtype).to(device)

        cells = [np.asarray(each.cell)[None] * bool(each.pbc.any()) for each in atoms]
        return cls(
            numbers=joined([each.numbers for each in atoms], torch.int64),
            masses=joined([each.get_masses() for each in atoms], torch.float64),
            positions=joined([each.positions for each in atoms], torch.float64),
            cells=joined(cells, torch.float64),
            pbc=joined([each.pbc[None] for each in atoms], torch.bool),
            system=_row_of_each(sizes).to(device),
            replica=torch.arange(len(sizes), device=device),
            states=[state_of_atoms(each) for each in atoms],
            starts=[0, *accumulate(sizes)],
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def device(self) -> torch.device:
        """Of every tensor."""
        return self.positions.device

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Of the atoms of each system: `[N, ...]` -> `[B, ...]`, in an order that other systems do not change."""
        return segment_sum(values, Segments(self.system), len(self))

    def of_atoms(self, values: torch.Tensor) -> torch.Tensor:
        """Each atom's row of what systems have: `[B, ...]` -> `[N, ...]`."""
        return values.index_select(0, self.system)

    def kinetic(self, velocities: torch.Tensor) -> torch.Tensor:
        """Kinetic energy `[B]` eV of velocities `[N, 3]` in Å per ASE's unit of time."""
        return self.sum(self.masses * velocities.square().sum(1)) / 2

    def volumes(self) -> torch.Tensor:
        """`[B]` Å³; zero where there is no cell."""
        return torch.linalg.det(self.cells).abs()

    def electronic_states(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Charge and spin as a graph carries them, `[B]`; of neutral singlets where a system states none."""
        return {
            name: torch.tensor([state.get(name, usual) for state in self.states], dtype=dtype, device=self.device)
            for name, usual in USUAL.items()
        }

    def span(self, row: int) -> slice:
        """Where the atoms of a system lie."""
        return slice(self.starts[row], self.starts[row + 1])

    def rows(self, chosen: Sequence[int]) -> Systems:
        """Some of the systems, as copies."""
        atoms = self.atoms_of(chosen)
        sizes = [self.starts[row + 1] - self.starts[row] for row in chosen]
        index = torch.tensor(chosen, dtype=torch.int64, device=self.device)
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("numbers", "masses", "positions"):
            parts[name] = parts[name][atoms]
        for name in ("cells", "pbc", "replica"):
            parts[name] = parts[name][index]
        parts["states"] = [self.states[row] for row in chosen]
        parts["system"] = _row_of_each(sizes).to(self.device)
        return Systems(**parts | {"starts": [0, *accumulate(sizes)]})

    def atoms_of(self, rows: Sequence[int]) -> torch.Tensor:
        """Indices of the atoms of some systems, in their order."""
        spans = [torch.arange(self.starts[row], self.starts[row + 1]) for row in rows]
        return torch.cat([torch.empty(0, dtype=torch.int64), *spans]).to(self.device)


def _row_of_each(sizes: Sequence[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
