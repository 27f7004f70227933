"""Error measures. Arrays come in eV and eV/Å, numbers go out in meV and meV/Å, as their names say."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

Array = NDArray[np.float64]

MEV = 1000.0
MIN_FORCE_FOR_DIRECTION = 0.01
"""eV/Å; a reference force weaker than this has no direction worth comparing."""


def energy_metrics(predicted: Array, reference: Array, atom_counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Errors of total energies `[B]` eV of frames with `atom_counts [B]` atoms.

    mae and rmse per frame and per atom, the largest absolute error, and the mean signed error (predicted minus
    reference): a mean error as large as the MAE is an offset, not noise. All None without frames.
    """
    error = (predicted - reference) * MEV
    per_atom = error / atom_counts
    return {
        "energy_mae_mev": _mae(error),
        "energy_rmse_mev": _rmse(error),
        "energy_max_mev": _largest(error),
        "energy_mean_error_mev": float(error.mean()) if error.size else None,
        "energy_mae_mev_per_atom": _mae(per_atom),
        "energy_rmse_mev_per_atom": _rmse(per_atom),
    }


def force_metrics(predicted: Array, reference: Array) -> dict[str, float | None]:
    """Errors of forces `[N, 3]` eV/Å, over components; the angle's cosine, over atoms. All None without atoms.

    `force_cosine` is the mean cosine of the angle between predicted and reference force over atoms whose reference
    force exceeds MIN_FORCE_FOR_DIRECTION; None if there is no such atom. A predicted force of zero counts as cosine 0.
    """
    error = (predicted - reference) * MEV
    return {
        "force_mae_mev_per_ang": _mae(error),
        "force_rmse_mev_per_ang": _rmse(error),
        "force_max_mev_per_ang": _largest(error),
        "force_cosine": _mean_cosine(predicted, reference),
    }


def force_metrics_by_element(predicted: Array, reference: Array, numbers: NDArray[np.int64]) -> dict[str, dict]:
    """`force_metrics` of the atoms of each element, keyed by chemical symbol in the order of atomic number."""
    table = {}
    for number in np.unique(numbers).tolist():
        chosen = numbers == number
        row = {"n_atoms": int(chosen.sum()), **force_metrics(predicted[chosen], reference[chosen])}
        table[chemical_symbols[number]] = row
    return table


def stress_metrics(predicted: Array, reference: Array) -> dict[str, float | None]:
    """Errors of stresses `[B, 3, 3]` eV/Å³, over all nine components."""
    error = (predicted - reference) * MEV
    return {"stress_mae_mev_per_ang3": _mae(error), "stress_rmse_mev_per_ang3": _rmse(error)}


def _mae(error: Array) -> float | None:
    return float(np.abs(error).mean()) if error.size else None


def _rmse(error: Array) -> float | None:
    return float(np.sqrt(np.square(error).mean())) if error.size else None


def _largest(error: Array) -> float | None:
    return float(np.abs(error).max()) if error.size else None


def _mean_cosine(predicted: Array, reference: Array) -> float | None:
    length = np.linalg.norm(reference, axis=1)
    strong = length > MIN_FORCE_FOR_DIRECTION
    if not strong.any():
        return None
    p, r = predicted[strong], reference[strong]
    norms = np.linalg.norm(p, axis=1) * length[strong]
    dots = np.einsum("ij,ij->i", p, r)
    return float(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0).mean())
