"""What is trained and towards what: the model with its energy reference, the loss, and the validation errors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import nn

import sdas_kernels.nn
from sdas.config import Config, TrainConfig
from sdas.data import Frame, check_frame
from sdas.data.elements import elements_of, unknown_elements
from sdas.errors import ConfigError, TrainingError
from sdas.train.energy_reference import fit_energy_reference
from sdas.train.graphs import Batch, GraphStore
from sdas.train.processes import Processes

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(config: Config, frames: Sequence[Frame], train: NDArray[np.int64]) -> tuple[nn.Module, float]:
    """A new model with energy shifts fitted to the training frames, and the unit of its output in eV.

    Species that the configuration does not name are those of the training frames, for nothing else gets weights.
    Raises :class:`ConfigError` for model arguments that do not go together.
    """
    arguments = config.model.model_dump()
    options = arguments.pop("options")
    if arguments["species"] is None:
        arguments["species"] = sorted(elements_of(frames, train))
    try:
        model = sdas_kernels.nn.SDAS(**arguments, **options).to(DTYPES[config.train.dtype])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from None
    labelled = (check_frame(frames[int(index)], ("energy", "forces")) for index in train)
    reference = fit_energy_reference(labelled, model.species.tolist())
    model.set_energy_reference(reference.shifts, reference.unit)
    return model, reference.unit


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


def batch_loss(
    settings: TrainConfig,
    predicted: dict[str, torch.Tensor],
    batch: Batch,
    force_rms: float,
    frames: int,
    atoms: int,
) -> torch.Tensor:
    """The part of the loss that ``batch`` contributes to a global batch of that many ``frames`` and ``atoms``."""
    energy = (predicted["energy"] - batch.energy).square().sum() / (frames * force_rms**2)
    forces = (predicted["forces"] - batch.forces).square().sum() / (3 * atoms * force_rms**2)
    return settings.lambda_energy * energy + settings.lambda_forces * forces


def validate(
    model: nn.Module, store: GraphStore, indices: NDArray[np.int64], batch_size: int, processes: Processes
) -> dict[str, float] | None:
    """Mean absolute errors of energies (meV per frame) and force components (meV/Å) over frames shared out to all
    processes; None without frames. Raises :class:`TrainingError` if they are not finite."""
    if len(indices) == 0:
        return None
    own = indices[processes.rank :: processes.size]
    sums = torch.zeros(3, dtype=torch.float64, device=processes.device)
    for first in range(0, len(own), batch_size):
        batch = store.batch(own[first : first + batch_size]).to(processes.device)
        predicted = model(batch.graph)
        sums[0] += (predicted["energy"] - batch.energy).abs().sum()
        sums[1] += (predicted["forces"] - batch.forces).abs().sum(dtype=torch.float64)
        sums[2] += batch.forces.numel()
    energy, forces, components = processes.total(sums.tolist())
    if not np.isfinite([energy, forces]).all():
        raise TrainingError("the averaged model gives energies or forces that are not finite on the validation frames")
    return {"energy_mae_mev": 1e3 * energy / len(indices), "force_mae_mev_per_ang": 1e3 * forces / components}
