"""What moves the atoms: a model, a function, or both with a bias.

forces(systems, stress=False)["forces"]        # anything with this call, and the attribute `invariant`, will do
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from sdas.data.electronic_states import checked_state
from sdas.data.graphs import knows_states, refuse_unknown, refuse_untrained
from sdas.errors import SdasError
from sdas.md.systems import Systems
from sdas.md.verlet_list import NoNeighborsError, VerletList
from sdas.run.device import find_device
from sdas.run.fingerprint import model_fingerprint
from sdas.run.model import load_run_model, species_of
from sdas_kernels.nn import FrozenPotential, InnerCutoffError
from sdas_kernels.nn.inference import recording_allowed

DTYPES = {"float64": torch.float64, "float32": torch.float32}
SKIN = 1.0
"""Å beyond the cutoff up to which pairs are listed."""

Results = Mapping[str, torch.Tensor]


@runtime_checkable
class Forces(Protocol):
    """Energies and forces of systems side by side; a potential, or a bias that is added to one.

    invariant: whether no energy changes when a system is moved as a whole and, without a cell, turned. Momentum, and
    angular momentum without a cell, are conserved then, and do not count as degrees of freedom.

    One with `state_dict` and `load_state_dict`, as modules of PyTorch have, is saved and restored with a run.
    """

    invariant: bool

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """At least "energy" `[B]` eV and "forces" `[N, 3]` eV/Å, and with `stress` "stress" `[B, 3, 3]` eV/Å³.

        Where "closest" `[B]` Å, the distance of the closest two atoms, is given too, atoms that meet end a replica.
        Others, such as an uncertainty, have a row per system; they are in the results that observers see.
        The result must not depend on what was called before. Raises `NoNeighborsError` for a system that has none.
        """
        ...


class ModelForces:
    """The forces of a model, with its neighbors found once in many steps.

    Args:
        model: an `sdas_kernels.nn.SDAS` or anything with its call, `species` and `cutoff`; or a run directory or model
            directory. It is copied: what is done to it later does not count.
        dtype: of the model's arithmetic, float64 or float32, by name or as torch's object.
        device: such as "cpu" or "cuda"; by default where the model is.
        skin: Å, see :mod:`sdas.md.verlet_list`.
        batch: systems per call of the model; by default all. How many systems go into a call can change the last bits
            of a result. With 1 those of a system do not depend on the others; nor do they on a CPU, of a default model.
    """

    invariant = True

    def __init__(
        self,
        model: torch.nn.Module | str | Path,
        dtype: torch.dtype | str = torch.float64,
        device: torch.device | str | None = None,
        skin: float = SKIN,
        batch: int | None = None,
    ) -> None:
        if batch is not None and batch < 1:
            raise SdasError(f"batch must be at least one system per call, got {batch}")
        self.dtype = known_dtype("ModelForces", dtype)
        self.model, self.fingerprint = prepared_model(model, self.dtype, device)
        self._frozen = FrozenPotential.of(self.model)
        self.device = next(self.model.parameters()).device
        self.species = species_of(self.model)
        self.skin, self.batch = skin, batch
        self._lists: dict[int, VerletList] = {}  # by the first replica of a call

    def check(self, systems: Systems) -> None:
        """Raises SdasError for an element, or a charge or spin, that the model does not know."""
        refuse_unknown(systems.numbers.tolist(), self.species, "", "; train with {names}")
        if not knows_states(self.model):
            return
        for row, state in enumerate(systems.states):
            numbers = systems.numbers[systems.span(row)].cpu().numpy()
            refuse_untrained(checked_state(state, numbers, f"system {row}"), self.model, f"system {row}: ")

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """See :class:`Forces`."""
        size = self.batch or len(systems)
        if size >= len(systems):
            return self._call(systems, stress)
        found = []
        for first in range(0, len(systems), size):
            try:
                found.append(self._call(systems.rows(range(first, min(first + size, len(systems)))), stress))
            except NoNeighborsError as error:
                raise NoNeighborsError(first + error.row, str(error)) from None
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def _call(self, systems: Systems, stress: bool) -> dict[str, torch.Tensor]:
        first = int(systems.replica[0])
        if first not in self._lists:
            self._lists[first] = VerletList(float(self.model.cutoff), self.skin, self.dtype, knows_states(self.model))
        return evaluated(self.model, self._frozen, self._lists[first], systems, stress)


def evaluated(
    model: Any, frozen: FrozenPotential | None, neighbors: VerletList, systems: Systems, stress: bool
) -> dict[str, torch.Tensor]:
    """Energies, forces, the stress if it is wanted and "closest", float64, by the shorter of two routes.

    `frozen` is the model as one kernel runs it, if one does.
    """
    if frozen is not None and frozen.serves():
        with suppress(InnerCutoffError):
            return neighbors.evaluate(frozen, systems, stress)
    out = model(neighbors.graph(systems), forces=True, stress=stress)
    found = {name: out[name].detach().double() for name in ("energy", "forces", "stress") if name in out}
    return found | {"closest": neighbors.closest}


class EnergyFunction:
    """The forces of an energy that PyTorch can differentiate.

        well = EnergyFunction(lambda systems: 2.0 * systems.sum(systems.positions.square().sum(1)), invariant=False)

    Args:
        energy: from systems, whose positions and cells require gradients, to eV `[B]`.
        invariant: see :class:`Forces`.
    """

    def __init__(self, energy: Callable[[Systems], torch.Tensor], invariant: bool) -> None:
        self.energy, self.invariant = energy, invariant

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """See :class:`Forces`; the stress is the derivative by strain of positions and cells."""
        with recording_allowed(), torch.enable_grad():
            positions = systems.positions.detach().clone().requires_grad_()
            if not stress:
                energy = self._energy(replace(systems, positions=positions))
                return {"energy": energy.detach(), "forces": -_gradients(energy, [positions])[0]}
            strain = positions.new_zeros(len(systems), 3, 3, requires_grad=True)
            stretch = torch.eye(3, dtype=positions.dtype, device=positions.device) + (strain + strain.mT) / 2
            moved = (positions[:, None, :] @ systems.of_atoms(stretch)).squeeze(1)
            energy = self._energy(replace(systems, positions=moved, cells=systems.cells @ stretch))
            by_positions, by_strain = _gradients(energy, [positions, strain])
        by_strain = by_strain / systems.volumes()[:, None, None]
        return {"energy": energy.detach(), "forces": -by_positions, "stress": by_strain}

    def _energy(self, systems: Systems) -> torch.Tensor:
        energy = self.energy(systems)
        if energy.shape != (len(systems),):
            raise SdasError(f"an energy function must give [{len(systems)}] energies, got {list(energy.shape)}")
        return energy.double()


def _gradients(energy: torch.Tensor, variables: list[torch.Tensor]) -> list[torch.Tensor]:
    if not energy.requires_grad:
        return [torch.zeros_like(variable) for variable in variables]
    found = torch.autograd.grad(energy.sum(), variables, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(variables, found, strict=True)]


def as_forces(given: Any, **options: Any) -> Forces:
    """Forces as they are, or those of a model; `options` are those of `ModelForces`.

    Raises SdasError for something else, and for options that such forces do not take.
    """
    if isinstance(given, torch.nn.Module | str | Path) and not isinstance(given, Forces):
        return ModelForces(given, **options)
    if not (callable(given) and isinstance(getattr(given, "invariant", None), bool)):
        raise SdasError(
            "forces must be a model, its folder, or a callable with the attribute 'invariant' (True or False: does the "
            f"energy stay the same when a system is moved or turned), got {type(given).__name__}"
        )
    if options:
        raise SdasError(f"{', '.join(options)}: only of a model's forces, got {type(given).__name__}")
    return given


@recording_allowed()  # the copy of the weights is to be differentiable wherever it is made
def prepared_model(
    model: torch.nn.Module | str | Path, dtype: torch.dtype, device: torch.device | str | None
) -> tuple[Any, str]:
    """A copy of a model that is ready for inference, and the fingerprint of the model as it came."""
    module: Any = copy.deepcopy(model) if isinstance(model, torch.nn.Module) else load_run_model(model)
    fingerprint = model_fingerprint(module)
    if device is not None:
        module.to(find_device(device))
    if next(module.parameters()).dtype != dtype:  # else buffers that are kept in float64 would be narrowed
        module.to(dtype)
    return module.eval().requires_grad_(False), fingerprint


def known_dtype(owner: str, given: Any) -> torch.dtype:
    """float64 or float32, from its name or torch's object; raises SdasError for others."""
    for name, dtype in DTYPES.items():
        if given in (name, dtype):
            return dtype
    raise SdasError(f"{owner}: dtype must be {' or '.join(DTYPES)}, got {given!r}")
