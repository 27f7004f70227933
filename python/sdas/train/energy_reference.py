"""What the network need not learn: an energy per species, and the unit of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from sdas.data import Frame, check_frame
from sdas.errors import TrainingError

NULL_SPACE = 1e-9
"""Largest squared component of a species in the null space of the compositions that is rounding."""
ROUNDING = 1e-10
"""Largest spread of energies per atom, relative to their size or in eV, that is rounding."""


@dataclass(frozen=True)
class EnergyReference:
    """Energies of the species, and what the training frames hold beyond them.

    shifts: eV per atom of each species. origin: where they come from, in words. undetermined: species whose shifts the
    frames leave open. force_rms: root mean square of the force components, eV/Å; None if there are no forces, or only
    zeros. energy_mean, energy_rms: mean and spread of the energies per atom beyond the shifts, eV; None where no frame
    has an energy.
    """

    shifts: dict[int, float]
    origin: str
    undetermined: tuple[int, ...]
    force_rms: float | None
    energy_mean: float | None
    energy_rms: float | None

    @property
    def unit(self) -> float:
        """The unit of the network's output in eV: the RMS of forces, over 1 Å, or else the spread of energies."""
        unit = self.force_rms or self.energy_rms
        if not unit:
            raise TrainingError(
                "there is no scale to learn by: the training frames have no forces other than zero, "
                "and no energies that differ per atom from those of the elements"
            )
        return unit


def fit_energy_reference(frames: Iterable[Frame], species: Iterable[int]) -> EnergyReference:
    """Shifts by least squares of the energies per atom of ``frames``, E / N ≈ Σ_Z (n_Z / N) shift_Z.

    Where compositions leave shifts open (a single molecule, say) they are those nearest to the mean energy per atom.
    Raises :class:`TrainingError` for elements that are not in ``species``.
    """
    sums = _Sums(frames, species)
    shifts, undetermined = sums.fit()
    return sums.reference(shifts, undetermined, f"fitted to {sums.with_energy} training frames")


def given_energy_reference(
    frames: Iterable[Frame], species: Iterable[int], energies: Mapping[int, float], origin: str
) -> EnergyReference:
    """Shifts that are known: eV by atomic number. Raises :class:`TrainingError` naming species without one."""
    known = sorted(species)
    missing = [chemical_symbols[z] for z in known if z not in energies]
    if missing:
        raise TrainingError(f"{origin}: no energy of {', '.join(missing)}, which the model is to know")
    return _Sums(frames, known).reference(np.array([energies[z] for z in known]), (), origin)


class _Sums:
    """Energies per atom of frames, composition by composition, and squares of forces."""

    def __init__(self, frames: Iterable[Frame], species: Iterable[int]) -> None:
        self.species = sorted(species)
        self.with_energy, self.square, self.components = 0, 0.0, 0
        by_composition: dict[tuple[tuple[int, int], ...], list[float]] = {}
        for frame in frames:
            unknown = sorted(set(frame.numbers.tolist()) - set(self.species))
            if unknown:
                raise TrainingError(f"{frame.source}: atomic numbers {unknown} are not in model.species {self.species}")
            check_frame(frame)
            if frame.energy is not None:
                self.with_energy += 1
                by_composition.setdefault(frame.composition, []).append(frame.energy / len(frame))
            if frame.forces is not None:
                self.square += float(np.square(frame.forces).sum())
                self.components += frame.forces.size
        column = {z: k for k, z in enumerate(self.species)}
        self.fractions = np.zeros((len(by_composition), len(column)))
        for row, composition in enumerate(by_composition):
            for z, count in composition:
                self.fractions[row, column[z]] = count
        self.fractions /= self.fractions.sum(1, keepdims=True)
        self.counts = np.array([len(energies) for energies in by_composition.values()], dtype=np.float64)
        self.means = np.array([np.mean(energies) for energies in by_composition.values()])
        self.within = float(sum(np.square(e - np.mean(e)).sum() for e in map(np.array, by_composition.values())))

    def fit(self) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        """Shifts [species] in eV, and the species that occur without being determined."""
        if not self.with_energy:
            return np.zeros(len(self.species)), ()
        mean = self.counts @ self.means / self.with_energy
        weight = np.sqrt(self.counts)
        u, s, v = np.linalg.svd(weight[:, None] * self.fractions, full_matrices=False)
        rank = int(np.count_nonzero(s > s[0] * max(self.fractions.shape) * np.finfo(np.float64).eps))
        u, s, v = u[:, :rank], s[:rank], v[:rank]
        differences = v.T @ (u.T @ (weight * (self.means - mean)) / s)
        is_open = (1 - np.square(v).sum(0) > NULL_SPACE) & (self.fractions > 0).any(0)
        return mean + differences, tuple(z for z, open_ in zip(self.species, is_open, strict=True) if open_)

    def reference(self, shifts: NDArray[np.float64], undetermined: tuple[int, ...], origin: str) -> EnergyReference:
        """What the frames hold beyond these shifts."""
        mean = rms = None
        if self.with_energy:
            rest = self.means - self.fractions @ shifts
            mean = float(self.counts @ rest / self.with_energy)
            rms = float(np.sqrt((self.counts @ np.square(rest - mean) + self.within) / self.with_energy))
            rms = rms if rms > ROUNDING * max(1.0, np.abs(self.means).max()) else 0.0
        force_rms = float(np.sqrt(self.square / self.components)) if self.square else None
        by_species = dict(zip(self.species, shifts.tolist(), strict=True))
        return EnergyReference(by_species, origin, undetermined, force_rms, mean, rms)
