"""The loss: what errors of energies, forces and stresses cost.

    loss =   w_E · mean over frames ℓ(ΔE / (N s_E))
           + w_F · mean over atoms  ℓ(ΔF / s)
           + w_σ · mean over frames ℓ(V Δσ / (N s))

ΔE is in eV, ΔF in eV/Å, V Δσ, the error of the virial, in eV. N is the number of atoms of a frame, V its volume. With
``energy_per: sqrt_atom`` ΔE is divided by √N. The unit s is the RMS of the training forces in eV/Å, and in eV over 1 Å;
without forces the spread of the energies per atom. s_E is s, or ten times the spread of the compositions' mean energies
per atom where that is more (:mod:`sdas.train.energy_reference`). So the weights w have no unit.

ℓ of an energy [1], a force [3] or a virial [9]:

    squared    mean over components of x²
    huber      mean over components of x² where |x| ≤ δ, and of δ (2|x| − δ) beyond
    norm       square root of the sum over components of x²

Each mean is over the labels that the frames of the global batch have. The ℓ of a frame is multiplied by the weight of
the frame and by that of its config_type.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdas.config import TrainConfig
from sdas.train.graphs import Batch, LabelCounts
from sdas.train.lone_atoms import of_frames


@dataclass(frozen=True)
class Weights:
    """Of the errors of energies, forces and stresses in the loss."""

    energy: float
    forces: float
    stress: float


@dataclass(frozen=True)
class Terms:
    """Which errors of a batch are in the loss. masked: frames of the batch lack one of them. weighted: a frame counts
    more or less than 1."""

    energy: bool
    forces: bool
    stress: bool
    masked: bool
    weighted: bool

    @property
    def any(self) -> bool:
        """Whether there is something to learn."""
        return self.energy or self.forces or self.stress

    def kind(self, batch: Batch) -> str:
        """Of a step on ``batch``: those of one kind compute the same, of more or fewer atoms."""
        parts = [name for name in Terms.__dataclass_fields__ if getattr(self, name)]
        parts += ["periodic"] if batch.graph.periodic else []
        return "+".join(parts + ([f"{len(batch.beside.energies)} lone atoms"] if batch.beside is not None else []))


@dataclass(frozen=True)
class Loss:
    """The loss of a run, as its settings say; unit, energy_unit: s and s_E in eV."""

    settings: TrainConfig
    unit: float
    energy_unit: float

    def weights(self, fraction: float) -> Weights:
        """The weights when that fraction of the run has passed."""
        settings, energy = self.settings, self.settings.energy_weight
        if settings.energy_weight_late is not None and fraction >= settings.late_from:
            energy = settings.energy_weight_late
        return Weights(energy, settings.forces_weight, settings.stress_weight)

    def terms(self, batch: Batch, weights: Weights) -> Terms:
        """Which errors of ``batch`` are in the loss with these weights."""
        counts = batch.counts
        energy, forces = counts.energies > 0 < weights.energy, counts.atoms_with_forces > 0 < weights.forces
        stress = counts.stresses > 0 < weights.stress
        masked = (
            (energy and counts.energies < counts.frames)
            or (forces and counts.atoms_with_forces < counts.atoms)
            or (stress and counts.stresses < counts.frames)
        )
        return Terms(energy, forces, stress, masked, batch.weight is not None)

    def __call__(
        self, predicted: dict[str, torch.Tensor], batch: Batch, terms: Terms, weights: Weights, total: LabelCounts
    ) -> torch.Tensor:
        """The part of the loss that ``batch`` contributes to a global batch with as many labels as ``total`` says.

        predicted: what the model gives of the batch's graph for ``terms``.
        """
        predicted, parts = of_frames(predicted, batch), list[torch.Tensor]()
        if terms.energy:
            sizes = batch.sizes if self.settings.energy_per == "atom" else batch.sizes.sqrt()
            error = _error(predicted["energy"], batch.energy, terms) / (self.energy_unit * sizes)
            parts.append(self._mean(error[:, None], batch.weight, total.energies) * weights.energy)
        if terms.forces:
            error = _error(predicted["forces"], batch.forces, terms) / self.unit
            of_atoms = None if batch.weight is None else batch.weight[batch.graph.system[: len(batch.forces)]]
            parts.append(self._mean(error, of_atoms, total.atoms_with_forces) * weights.forces)
        if terms.stress:
            factor = (batch.volumes / (self.unit * batch.sizes)).to(batch.stress.dtype)
            error = _error(predicted["stress"], batch.stress, terms) * factor[:, None, None]
            parts.append(self._mean(error.flatten(1), batch.weight, total.stresses) * weights.stress)
        return sum(parts[1:], start=parts[0]) if parts else torch.zeros(())

    def _mean(self, error: torch.Tensor, weight: torch.Tensor | None, labels: int) -> torch.Tensor:
        """Σ weight ℓ(error) over the rows of ``error``, divided by the number of ``labels`` of all processes."""
        cost = self._cost(error)
        weighted = cost if weight is None else cost * weight[:, None].to(cost.dtype)
        return weighted.sum() / (cost.shape[1] * labels)

    def _cost(self, error: torch.Tensor) -> torch.Tensor:
        """What has the mean ℓ in every row of ``error`` [rows, components]: [rows, components], or [rows, 1]."""
        if self.settings.loss == "norm":
            return torch.linalg.vector_norm(error, dim=1, keepdim=True)
        if self.settings.loss == "squared":
            return error.square()
        delta, size = self.settings.huber_delta, error.abs()
        return torch.where(size <= delta, error.square(), delta * (2 * size - delta))


def _error(predicted: torch.Tensor, label: torch.Tensor, terms: Terms) -> torch.Tensor:
    """Zero where there is no label."""
    error = predicted - label
    return torch.where(torch.isnan(label), 0.0, error) if terms.masked else error
