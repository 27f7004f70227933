"""What is trained and how far it is: the model with its energy reference, its labels, and the validation errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import nn

import sdas_kernels.nn
from sdas.config import Config, TrainConfig
from sdas.config.train import DEFAULT_TYPE
from sdas.data import Frame, FrameCache
from sdas.data.elements import elements_of, unknown_elements
from sdas.data.frame import LABELS
from sdas.data.graphs import graph_of
from sdas.errors import ConfigError, TrainingError
from sdas.train.element_properties import NUMBER_OF_PROPERTIES, embedding_of
from sdas.train.energy_reference import EnergyReference, energy_reference
from sdas.train.graphs import Batch, GraphStore, labelled
from sdas.train.order import in_batches, share
from sdas.train.processes import Processes

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(config: Config, frames: Sequence[Frame], train: NDArray[np.int64]) -> tuple[nn.Module, EnergyReference]:
    """A new model, with its energy reference and what the training frames hold beyond it.

    Species that the configuration does not name are those of the training frames, for nothing else gets weights. Where
    they are many, they begin as their properties have it (:mod:`sdas.train.element_properties`).
    Raises :class:`ConfigError` for model arguments that do not go together, and for a cutoff that reaches no neighbor.
    """
    _check_cutoff(config.model.cutoff, frames, train)
    arguments = config.model.model_dump()
    options = arguments.pop("options")
    if arguments["species"] is None:
        arguments["species"] = sorted(elements_of(frames, train))
    try:
        model = sdas_kernels.nn.SDAS(**arguments, **options).to(DTYPES[config.train.dtype])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from None
    known = model.species.tolist()
    if len(known) > NUMBER_OF_PROPERTIES:
        with torch.no_grad():
            model.embedding.weight.copy_(embedding_of(known, model.config["channels"]))
    setting = config.train.energy_reference
    reference = energy_reference(setting, frames, train, known)
    model.set_energy_reference(reference.shifts, reference.unit)
    return model, reference


def _check_cutoff(cutoff: float, frames: Sequence[Frame], train: NDArray[np.int64]) -> None:
    several = (frame for frame in (frames[index] for index in train.tolist()) if len(frame) > 1 or frame.pbc.any())
    first = next(several, None)
    if first is not None and not any(
        graph_of(frame, cutoff, torch.float64).num_edges for frame in chain([first], several)
    ):
        raise ConfigError(
            f"model.cutoff: no atom of the training frames has a neighbor within {cutoff:g} Å, so no force could be "
            "learned: raise it"
        )


def check_elements(
    config: Config, frames: Sequence[Frame], train: NDArray[np.int64], parts: Mapping[str, NDArray[np.int64]]
) -> None:
    """Raise :class:`TrainingError` if ``parts``, name → indices of frames, hold an element that no training frame does.

    Elements that ``model.species`` names beyond the training frames are pointed out on standard error.
    """
    unknown = unknown_elements(frames, train, parts)
    if unknown:
        raise TrainingError(
            f"{'; '.join(unknown)}: weights of such an element would stay as they were drawn. Divide the frames "
            "otherwise (data.split.seed, method or indices), add frames for training, or leave these out"
        )
    beyond = sorted(set(config.model.species or ()) - elements_of(frames, train))
    if beyond:
        names = ", ".join(chemical_symbols[number] for number in beyond)
        print(f"note: model.species names {names}, which no training frame holds: it stays untrained", file=sys.stderr)


def trained_labels(settings: TrainConfig, frames: Sequence[Frame], train: NDArray[np.int64]) -> str:
    """Which labels of the training frames are in the loss, in words.

    Raises :class:`TrainingError` if there are none, and for weights of a config_type that no training frame has.
    """
    counts = {label: int(np.count_nonzero(labelled(frames, label)[train])) for label in LABELS}
    weights = {
        "energy": settings.energy_weight or settings.energy_weight_late,
        "forces": settings.forces_weight,
        "stress": settings.stress_weight,
    }
    there = [label for label in LABELS if counts[label]]
    used = [f"{label} of {counts[label]} frames" for label in there if weights[label]]
    left = [f"{label} of {counts[label]} frames, as train.{label}_weight is 0" for label in there if not weights[label]]
    left += [f"{label}, which no frame has" for label in LABELS if not counts[label]]
    if not used:
        raise TrainingError(f"nothing to learn from {len(train)} training frames; not trained on: {'; '.join(left)}")
    _check_config_types(settings, frames, train)
    return f"trained on: {', '.join(used)}" + (f"; not on: {'; '.join(left)}" if left else "")


def _check_config_types(settings: TrainConfig, frames: Sequence[Frame], train: NDArray[np.int64]) -> None:
    named = set(settings.config_type_weights) - {DEFAULT_TYPE}
    if not named:
        return
    type_of = frames.config_type if isinstance(frames, FrameCache) else lambda index: frames[index].config_type
    there = {type_of(index) for index in train.tolist()} - {None}
    if named - there:
        raise TrainingError(
            f"train.config_type_weights names {', '.join(sorted(named - there))}, which no training frame is; their "
            f"config_type is {', '.join(sorted(map(str, there))) or 'not given'}"
        )


def validate(
    model: nn.Module,
    store: GraphStore,
    indices: NDArray[np.int64],
    budget: tuple[str, int],
    processes: Processes,
) -> dict[str, float] | None:
    """Mean absolute errors over frames shared out to all processes, of the labels that they have; None without frames.

    energy_mae_mev and energy_mae_mev_per_atom are means over frames, force_mae_mev_per_ang and stress_mae_mev_per_ang3
    over components. A batch holds what fits into the ``budget``, (unit, most), as :meth:`GraphStore.costs` has units.
    Raises :class:`TrainingError` if they are not finite.
    """
    if len(indices) == 0:
        return None
    sums = torch.zeros(4, dtype=torch.float64, device=processes.device)
    for part in _own_batches(store, indices, budget, processes):
        sums += _absolute_errors(model, store.batch(part).to(processes.device))
    energy, energy_per_atom, forces, stress = processes.total(sums.tolist())
    counts, errors = store.counts(indices), dict[str, float]()
    if counts.energies:
        errors["energy_mae_mev"] = 1e3 * energy / counts.energies
        errors["energy_mae_mev_per_atom"] = 1e3 * energy_per_atom / counts.energies
    if counts.atoms_with_forces:
        errors["force_mae_mev_per_ang"] = 1e3 * forces / (3 * counts.atoms_with_forces)
    if counts.stresses:
        errors["stress_mae_mev_per_ang3"] = 1e3 * stress / (9 * counts.stresses)
    if not np.isfinite(list(errors.values())).all():
        raise TrainingError("the averaged model gives energies or forces that are not finite on the validation frames")
    return errors


def force_errors(
    model: nn.Module,
    store: GraphStore,
    indices: NDArray[np.int64],
    budget: tuple[str, int],
    processes: Processes,
) -> NDArray[np.float64]:
    """Absolute errors of forces, a sum over components for each of the frames that have them, ``[m]`` in eV/Å."""
    place = {int(index): number for number, index in enumerate(indices)}
    sums, known = np.zeros(len(indices)), np.zeros(len(indices))
    for part in _own_batches(store, indices, budget, processes):
        batch = store.batch(part).to(processes.device)
        error = _known_error(model(batch.graph, forces=True)["forces"], batch.forces).sum(-1, dtype=torch.float64)
        labels = (~torch.isnan(batch.forces)).any(-1).double()
        own = [place[int(index)] for index in part]
        for target, values in ((sums, error), (known, labels)):
            target[own] = np.bincount(batch.graph.system.cpu().numpy(), values.cpu().numpy(), len(part))
    sums, known = np.split(np.array(processes.total([*sums.tolist(), *known.tolist()])), 2)
    return np.asarray(sums[known > 0])


def _own_batches(
    store: GraphStore, indices: NDArray[np.int64], budget: tuple[str, int], processes: Processes
) -> Iterator[NDArray[np.int64]]:
    """This process's share of the frames, in batches of what fits into the ``budget``."""
    unit, most = budget
    own = share(indices, store.costs(indices, "atoms"), processes.rank, processes.size)
    yield from in_batches(own, store.costs(own, unit), most)


def _absolute_errors(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Sums [4] over a batch: energies in eV, energies per atom in eV, force components in eV/Å, stresses in eV/Å³."""
    counts, sums = batch.counts, torch.zeros(4, dtype=torch.float64, device=batch.energy.device)
    forces, stress = counts.atoms_with_forces > 0, counts.stresses > 0
    if not (counts.energies or forces or stress):
        return sums
    predicted = model(batch.graph, forces=forces, stress=stress)
    if counts.energies:
        energy = _known_error(predicted["energy"], batch.energy)
        sums[0], sums[1] = energy.sum(), (energy / batch.sizes).sum()
    if forces:
        sums[2] = _known_error(predicted["forces"], batch.forces).sum(dtype=torch.float64)
    if stress:
        sums[3] = _known_error(predicted["stress"], batch.stress).sum(dtype=torch.float64)
    return sums


def _known_error(predicted: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Absolute, and zero where there is no label."""
    return torch.where(torch.isnan(label), 0.0, (predicted - label).abs())
