"""What the network need not learn: an energy per species, and the unit of everything else.

`train.energy_reference` says where the energies come from: a fit to the training frames, frames of isolated atoms, a
file of JSON or YAML, or the configuration itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from sdas.config.train import REFERENCES
from sdas.data import Frame, check_frame
from sdas.data.isolated_atoms import isolated_energies
from sdas.errors import ConfigError, TrainingError

NULL_SPACE = 1e-9
"""Largest squared component of a species in the null space of the compositions that is rounding."""
ROUNDING = 1e-10
"""Largest spread of energies per atom, relative to their size or in eV, that is rounding."""
SPREAD = 10.0
"""How often the spread of compositions goes into the unit of energies. In one unit with forces a network would first
learn which composition has which energy, by features that give forces where there are none."""


@dataclass(frozen=True)
class EnergyReference:
    """Energies of the species, and what the training frames hold beyond them.

    shifts: eV per atom of each species. origin: where they come from, in words. undetermined: species whose shifts the
    frames leave open. force_rms: root mean square of the force components, eV/Å; None if there are no forces, or only
    zeros. energy_mean, energy_rms: mean and spread of the energies per atom beyond the shifts, eV; None where no frame
    has an energy. composition_rms: the part of the spread that is between compositions, by the mean of each.
    of_atoms_alone: whether shifts are the energies of atoms alone, not a fit. spins: multiplicities of those atoms that
    have one, if training frames have unpaired electrons too.
    """

    shifts: dict[int, float]
    origin: str
    undetermined: tuple[int, ...]
    force_rms: float | None
    energy_mean: float | None
    energy_rms: float | None
    composition_rms: float | None
    of_atoms_alone: bool = False
    spins: Mapping[int, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What is recorded of it with a run."""
        symbols = {chemical_symbols[z]: shift for z, shift in self.shifts.items()}
        undetermined = [chemical_symbols[z] for z in self.undetermined]
        rest = {"energy_mean_ev_per_atom": self.energy_mean, "energy_rms_ev_per_atom": self.energy_rms}
        alone = {
            "of_atoms_alone": self.of_atoms_alone,
            "spins": {chemical_symbols[z]: s for z, s in self.spins.items()},
        }
        return {"origin": self.origin, "shifts_ev": symbols, "undetermined": undetermined, **rest, **alone}

    def lines(self) -> list[str]:
        """What is said of it when a run starts."""
        exact = ", which the model gives exactly to atoms alone" if self.of_atoms_alone else ""
        lines = [f"energies of {_names(self.shifts)}: from {self.origin}{exact}"]
        if self.undetermined:
            lines.append(
                f"note: the training frames do not tell the energies of {_names(self.undetermined)} apart, so those "
                "nearest to their mean are taken; other compositions need isolated atoms, or train.energy_reference"
            )
        return lines

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

    @property
    def energy_unit(self) -> float:
        """Of energies per atom in the loss, eV: the unit, or ten times the spread of compositions if that is more."""
        return max(self.unit, SPREAD * (self.composition_rms or 0.0)) if self.force_rms else self.unit


def energy_reference(
    setting: str | Mapping[Any, float], frames: Sequence[Frame], train: NDArray[np.int64], species: Iterable[int]
) -> EnergyReference:
    """The reference that ``setting``, `train.energy_reference`, asks for, of the training frames.

    Isolated atoms may lie anywhere among ``frames``. Raises :class:`TrainingError` naming species without an energy.
    """
    known, training = sorted(species), (frames[int(index)] for index in train)
    given = given_energies(setting)
    if given is not None:
        return given_energy_reference(training, known, *given)
    if setting == "fit":
        return fit_energy_reference(training, known)
    isolated, spins = isolated_energies(frames)
    missing = [z for z in known if z not in isolated]
    count = len(known) - len(missing)
    if not missing:
        origin = f"{count} isolated atom{'s' if count > 1 else ''}"
        return given_energy_reference(training, known, isolated, origin, spins)
    if setting == "isolated":
        raise TrainingError(
            f"train.energy_reference is isolated, but no frame is an isolated atom of {_names(missing)}: add one with "
            "config_type=IsolatedAtom, or choose fit"
        )
    reference = fit_energy_reference(training, known)
    if not count:
        return reference
    lacking = f"{reference.origin}, for there are isolated atoms of {_names(set(known) - set(missing))} only"
    return replace(reference, origin=lacking)


def given_energies(setting: str | Mapping[Any, float]) -> tuple[dict[int, float], str] | None:
    """eV by atomic number that the setting holds or that its file holds, and where they stand; None if it names none.

    Raises :class:`ConfigError` for a file that cannot be read, and for what is no mapping of elements to numbers.
    """
    if not isinstance(setting, str):
        return _by_number(setting, "train.energy_reference"), "train.energy_reference"
    if setting in REFERENCES:
        return None
    try:
        content = yaml.safe_load(Path(setting).read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        words = f"{', '.join(REFERENCES)}, a mapping of symbols to eV, or a file with one"
        raise ConfigError(f"train.energy_reference: {setting}: {error.strerror}; it may be {words}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{setting}: neither JSON nor YAML: {' '.join(str(error).split())}") from None
    return _by_number(content, setting), setting


def _by_number(content: Any, where: str) -> dict[int, float]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: must map elements to energies in eV, as H: -13.6; got {type(content).__name__}")
    energies: dict[int, float] = {}
    for element, energy in content.items():
        text = str(element)
        number = int(text) if text.isdecimal() else atomic_numbers.get(text, 0)
        if not 1 <= number < len(chemical_symbols):
            raise ConfigError(f'{where}: {element!r} is no element; give symbols in quotes, as "No", or atomic numbers')
        if type(energy) not in (int, float) or not math.isfinite(energy):
            raise ConfigError(f"{where}: the energy of {element} must be a number in eV, got {energy!r}")
        if number in energies:
            raise ConfigError(f"{where}: two energies of {chemical_symbols[number]}")
        energies[number] = float(energy)
    return energies


def _names(numbers: Iterable[int]) -> str:
    """Symbols of elements, of many the first ones."""
    symbols = [chemical_symbols[number] for number in sorted(numbers)]
    return ", ".join(symbols) if len(symbols) <= 12 else f"{', '.join(symbols[:10])} and {len(symbols) - 10} more"


def fit_energy_reference(frames: Iterable[Frame], species: Iterable[int]) -> EnergyReference:
    """Shifts by least squares of the energies per atom of ``frames``, E / N ≈ Σ_Z (n_Z / N) shift_Z.

    Where compositions leave shifts open (a single molecule, say) they are those nearest to the mean energy per atom.
    Raises :class:`TrainingError` for elements that are not in ``species``.
    """
    sums = _Sums(frames, species)
    shifts, undetermined = sums.fit()
    return sums.reference(shifts, undetermined, f"a fit to {sums.with_energy} training frames")


def given_energy_reference(
    frames: Iterable[Frame],
    species: Iterable[int],
    energies: Mapping[int, float],
    origin: str,
    spins: Mapping[int, float] | None = None,
) -> EnergyReference:
    """Shifts that are known, of atoms alone: eV by atomic number, and multiplicities of those that have one.

    Raises :class:`TrainingError` naming species without an energy.
    """
    known = sorted(species)
    missing = [chemical_symbols[z] for z in known if z not in energies]
    if missing:
        raise TrainingError(f"{origin}: no energy of {', '.join(missing)}, which the model is to know")
    sums = _Sums(frames, known)
    reference = sums.reference(np.array([energies[z] for z in known]), (), origin)
    known_spins = {z: spin for z, spin in (spins or {}).items() if z in energies and sums.unpaired}
    return replace(reference, of_atoms_alone=True, spins=known_spins)


class _Sums:
    """Energies per atom of frames, composition by composition, and squares of forces."""

    def __init__(self, frames: Iterable[Frame], species: Iterable[int]) -> None:
        self.species = sorted(species)
        self.with_energy, self.square, self.components, self.unpaired = 0, 0.0, 0, False
        by_composition: dict[tuple[tuple[int, int], ...], list[float]] = {}
        for frame in frames:
            unknown = sorted(set(frame.numbers.tolist()) - set(self.species))
            if unknown:
                raise TrainingError(f"{frame.source}: atomic numbers {unknown} are not in model.species {self.species}")
            check_frame(frame)
            self.unpaired |= frame.spin not in (None, 1)
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
        mean = rms = between = None
        if self.with_energy:
            rest = self.means - self.fractions @ shifts
            mean = float(self.counts @ rest / self.with_energy)
            squares = float(self.counts @ np.square(rest - mean))
            between = math.sqrt(squares / self.with_energy)
            rms = math.sqrt((squares + self.within) / self.with_energy)
            rms = rms if rms > ROUNDING * max(1.0, np.abs(self.means).max()) else 0.0
        force_rms = float(np.sqrt(self.square / self.components)) if self.square else None
        by_species = dict(zip(self.species, shifts.tolist(), strict=True))
        return EnergyReference(by_species, origin, undetermined, force_rms, mean, rms, between)
