"""The model as an ASE calculator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from sdas.data.electronic_states import checked_state, state_of_atoms
from sdas.data.graphs import knows_states, refuse_unknown, refuse_untrained
from sdas.errors import SdasError
from sdas.md.forces import SKIN, evaluated, known_dtype, prepared_model
from sdas.md.systems import Systems
from sdas.md.verlet_list import VerletList
from sdas.run.model import species_of
from sdas_kernels.nn import CompiledPotential, FrozenPotential


class SDASCalculator(Calculator):
    """Energy, forces and stress of a model, for molecules and periodic cells.

    Results follow ASE: energy and free_energy in eV (the same number), forces `[n, 3]` in eV/Å, stress in eV/Å³ as the
    six numbers xx, yy, zz, yz, xz, xy with ASE's sign, (∂E/∂strain) / volume; stress needs a cell that is periodic
    along all three axes. Neighbors are found once in many steps, see :mod:`sdas.md.verlet_list`.

    A model with `charge_spin` takes the total charge from `atoms.info["charge"]` and the multiplicity from
    `atoms.info["spin"]`, or from other names by which files state them. Where there is none, it is a neutral singlet.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or a run directory or model directory.
        dtype: float64 (the default: no rounding noise in long runs) or float32, by name or as torch's object; the model
            is copied to it.
        device: such as "cpu" or "cuda"; by default where the model is.
        compile: backend by which `sdas_kernels.nn.CompiledPotential` runs an SDAS model, such as "inductor": energies
            and forces of small systems come faster, after a compilation that takes about a minute at the first step.
        skin: Å; how much farther than the cutoff pairs are listed, so that they need not be found at each step.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE declares it so)
    discard_results_on_any_change = True

    def __init__(
        self,
        model: torch.nn.Module | str | Path,
        dtype: torch.dtype | str = torch.float64,
        device: torch.device | str | None = None,
        compile: str | None = None,
        skin: float = SKIN,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dtype = known_dtype("SDASCalculator", dtype)
        self.model, self.fingerprint = prepared_model(model, self.dtype, device)
        self.potential: Any = self.model if compile is None else CompiledPotential(self.model, compile)
        self.device = next(self.model.parameters()).device
        self.species = species_of(self.model)
        self._frozen = FrozenPotential.of(self.model) if compile is None else None
        self.neighbors = VerletList(float(self.model.cutoff), skin, self.dtype, knows_states(self.model))
        self._known_state: Mapping[str, float] = {}
        self._accepted: tuple[Atoms, Systems] | None = None  # the last atoms that were looked at whole

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation, of what a model reads; compared exactly, whatever `tol`.

        "info" stands for charge and spin. ASE's own comparison, to a tolerance and of ten arrays, takes longer than the
        model does for a molecule; bytes are compared sooner than numbers.
        """
        before = self.atoms
        if before is None:
            return list(all_changes)
        pairs = {
            "positions": (before.positions, atoms.positions),
            "numbers": (before.numbers, atoms.numbers),
            "cell": (before.cell.array, atoms.cell.array),
            "pbc": (before.pbc, atoms.pbc),
        }
        changes = [name for name, (old, new) in pairs.items() if old.tobytes() != new.tobytes()]
        if self._state(atoms) != self._state(before):
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `self.results`; energy and forces always, stress if it is asked for.

        Raises `SdasError` for an element that the model does not know and for a stress of a system that is not
        periodic along all three axes.
        """
        want_stress = "stress" in properties
        systems = self._moved(atoms) if list(system_changes) == ["positions"] else None
        if systems is None:
            systems = self._accept(atoms, properties, system_changes)
        assert self.atoms is not None
        if want_stress:
            _check_stress(self.atoms)
        out = evaluated(self.potential, self._frozen, self.neighbors, systems, want_stress)
        energy = float(out["energy"])
        self.results = {"energy": energy, "free_energy": energy, "forces": out["forces"].cpu().numpy()}
        if want_stress:
            self.results["stress"] = full_3x3_to_voigt_6_stress(out["stress"].reshape(3, 3).cpu().numpy())

    def _accept(self, atoms: Atoms | None, properties: Sequence[str], system_changes: Sequence[str]) -> Systems:
        """Copy and check atoms."""
        self._accepted = None
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.check(self.atoms)
        self._accepted = self.atoms, Systems.of([self.atoms], self.device)
        return self._accepted[1]

    def _moved(self, atoms: Atoms | None) -> Systems | None:
        """The atoms that were copied, at other positions, which is all that a step of dynamics changes."""
        if atoms is None or self._accepted is None or len(self._accepted[0]) != len(atoms):
            return None
        self.atoms, systems = self._accepted
        self.atoms.positions[:] = atoms.positions
        systems.positions.copy_(torch.from_numpy(self.atoms.positions))
        return systems

    @property
    def dtype_name(self) -> str:
        """float64 or float32."""
        return str(self.dtype).removeprefix("torch.")

    def check(self, atoms: Atoms) -> None:
        """Raise SdasError for an element or a state that the model does not know."""
        refuse_unknown(atoms.numbers.tolist(), self.species, "", "; train with {names}")
        self._state(atoms)

    def _state(self, atoms: Atoms) -> Mapping[str, Any]:
        """Charge and spin of the atoms, as far as they are stated and the model takes them."""
        if not knows_states(self.model):
            return {}
        state = state_of_atoms(atoms)
        if state != self._known_state:
            refuse_untrained(checked_state(state, atoms.numbers, "the structure"), self.model, "")
            self._known_state = state
        return state

    def closest_pair(self) -> tuple[float, int, int]:
        """Distance in Å and indices of the closest two atoms of the last calculation; infinity without neighbors."""
        return self.neighbors.closest_pair(0)


def _check_stress(atoms: Atoms) -> None:
    if not atoms.pbc.all():
        raise SdasError(f"stress needs a cell periodic along all three axes; pbc is {atoms.pbc.tolist()}")
