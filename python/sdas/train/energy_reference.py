"""What the network need not learn: an energy per species, and the unit of everything else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sdas.data import Frame, check_frame
from sdas.errors import TrainingError


@dataclass(frozen=True)
class EnergyReference:
    """shifts: eV per atom of each species. force_rms: root mean square of the force components, eV/Å."""

    shifts: dict[int, float]
    force_rms: float


def fit_energy_reference(frames: Iterable[Frame], species: Iterable[int]) -> EnergyReference:
    """Shifts by least squares, E ≈ Σ_Z n_Z shift_Z, and the RMS of the forces, over ``frames``.

    Where compositions do not determine the shifts (a single molecule, say) they are those of smallest norm. Raises
    :class:`TrainingError` for forces that are all zero and for species that are not in ``species``.
    """
    known = sorted(species)
    counts, energies, squares, components = [], [], 0.0, 0
    for frame in frames:
        unknown = sorted(set(frame.numbers.tolist()) - set(known))
        if unknown:
            raise TrainingError(f"{frame.source}: atomic numbers {unknown} are not in model.species {known}")
        check_frame(frame, ("energy", "forces"))
        assert frame.energy is not None and frame.forces is not None  # noqa: PT018
        counts.append([np.count_nonzero(frame.numbers == z) for z in known])
        energies.append(frame.energy)
        squares += float(np.square(frame.forces).sum())
        components += frame.forces.size
    if squares == 0:
        raise TrainingError("the forces of all training frames are zero: there is no scale to learn them by")
    shifts = np.linalg.lstsq(np.array(counts, dtype=np.float64), np.array(energies), rcond=None)[0]
    return EnergyReference(dict(zip(known, shifts.tolist(), strict=True)), float(np.sqrt(squares / components)))
