"""The model as an ASE calculator."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from sdas.data.graphs import refuse_unknown
from sdas.errors import SdasError
from sdas.run.device import find_device
from sdas.run.fingerprint import model_fingerprint
from sdas.run.model import load_run_model, species_of
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import CompiledPotential
from sdas_kernels.nn.inference import recording_allowed

DTYPES = {"float64": torch.float64, "float32": torch.float32}


class SDASCalculator(Calculator):
    """Energy, forces and stress of a model, for molecules and periodic cells.

    Results follow ASE: energy and free_energy in eV (the same number), forces `[n, 3]` in eV/Å, stress in eV/Å³ as the
    six numbers xx, yy, zz, yz, xz, xy with ASE's sign, (∂E/∂strain) / volume; stress needs a cell that is periodic
    along all three axes. Neighbors are found anew whenever atoms move.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or a run directory or model directory.
        dtype: float64 (the default: no rounding noise in long runs) or float32, by name or as torch's object; the model
            is copied to it.
        device: such as "cpu" or "cuda"; by default where the model is.
        compile: backend by which `sdas_kernels.nn.CompiledPotential` runs an SDAS model, such as "inductor": energies
            and forces of small systems come faster, after a compilation that takes about a minute at the first step.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE declares it so)
    discard_results_on_any_change = True

    @recording_allowed()  # the copy of the weights is to be differentiable wherever it is made
    def __init__(
        self,
        model: torch.nn.Module | str | Path,
        dtype: torch.dtype | str = torch.float64,
        device: torch.device | str | None = None,
        compile: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        module: Any = copy.deepcopy(model) if isinstance(model, torch.nn.Module) else load_run_model(model)
        self.fingerprint = model_fingerprint(module)
        """Of the model as it came, whatever the dtype here."""
        self.dtype = _known_dtype(dtype)
        if device is not None:
            module.to(find_device(device))
        self.model: Any = _in_dtype(module, self.dtype).eval().requires_grad_(False)
        self.potential: Any = self.model if compile is None else CompiledPotential(module, compile)
        self.device = next(self.model.parameters()).device
        self.species = species_of(self.model)
        self.graph: NeighborGraph | None = None

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
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        want_stress = "stress" in properties
        self.check(self.atoms, want_stress)
        cell = np.asarray(self.atoms.cell) if self.atoms.pbc.any() else None
        self.graph = NeighborGraph.build(
            self.atoms.positions, self.atoms.numbers, self.model.cutoff, cell, self.atoms.pbc, self.dtype, self.device
        )
        out = self.potential(self.graph, forces=True, stress=want_stress)
        energy = float(out["energy"].detach().reshape(()))
        self.results = {"energy": energy, "free_energy": energy, "forces": _array(out["forces"])}
        if want_stress:
            self.results["stress"] = full_3x3_to_voigt_6_stress(_array(out["stress"]).reshape(3, 3))

    @property
    def dtype_name(self) -> str:
        """float64 or float32."""
        return str(self.dtype).removeprefix("torch.")

    def check(self, atoms: Atoms, want_stress: bool = False) -> None:
        """Raise SdasError for an element that the model does not know, or a stress that has no meaning."""
        refuse_unknown(atoms.numbers.tolist(), self.species, "", "; train with {names}")
        if want_stress and not atoms.pbc.all():
            raise SdasError(f"stress needs a cell periodic along all three axes; pbc is {atoms.pbc.tolist()}")

    def closest_pair(self) -> tuple[float, int, int]:
        """Distance in Å and indices of the closest two atoms of the last calculation; infinity without neighbors."""
        if self.graph is None or self.graph.num_edges == 0:
            return float("inf"), -1, -1
        lengths = self.graph.edge_vectors().detach().norm(dim=1)
        edge = int(lengths.argmin())
        return float(lengths[edge]), int(self.graph.receivers[edge]), int(self.graph.senders[edge])


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _known_dtype(given: Any) -> torch.dtype:
    for name, dtype in DTYPES.items():
        if given in (name, dtype):
            return dtype
    raise SdasError(f"SDASCalculator: dtype must be {' or '.join(DTYPES)}, got {given!r}")


def _in_dtype(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The module with its weights in `dtype`; buffers that are kept in float64, as energy references are, stay so."""
    weights = next(module.parameters()).dtype
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype == weights:
            tensor.data = tensor.data.to(dtype)
    return module
