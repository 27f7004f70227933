"""The numbers of a run: what report.json holds."""

from __future__ import annotations

from typing import Any

from sdas.report.contents import RunContents

UNITS = {
    "energy_mae_mev": "mean absolute error of the energy of a test frame, meV",
    "energy_rmse_mev": "root mean square error of the energy of a test frame, meV",
    "force_mae_mev_per_ang": "mean absolute error of a force component on the test frames, meV/Å",
    "force_rmse_mev_per_ang": "root mean square error of a force component on the test frames, meV/Å",
    "train_flops": "floating-point operations of the whole training: forward, backward, double backward, optimizer",
    "apr": "accuracy per resource, (1 / force MAE) / train_flops with the force MAE in eV/Å: unit Å / (eV FLOP)",
    "wall_s": "wall time of the training, s",
    "n_train": "training frames",
    "n_val": "validation frames",
    "n_test": "test frames",
    "md_drift_mev_per_atom_per_ps": "slope of the total energy per atom over time in a run at constant energy",
    "md_fluctuation_mev_per_atom": "root mean square of the total energy per atom about that slope",
}
"""What each number of report.json is, with its unit; written into the file as well."""


def report_numbers(run: RunContents) -> dict[str, Any]:
    """Everything about the run that is a number or a short fact; None where it is not known."""
    metrics, summary, md = run.evaluation.metrics, run.summary, run.md_summary or {}
    return {
        "energy_mae_mev": metrics["energy_mae_mev"],
        "energy_rmse_mev": metrics["energy_rmse_mev"],
        "force_mae_mev_per_ang": metrics["force_mae_mev_per_ang"],
        "force_rmse_mev_per_ang": metrics["force_rmse_mev_per_ang"],
        "train_flops": summary.get("train_flops"),
        "apr": accuracy_per_resource(metrics["force_mae_mev_per_ang"], summary.get("train_flops")),
        "wall_s": summary.get("wall_s"),
        "steps": summary.get("steps"),
        "n_train": summary.get("n_train"),
        "n_val": summary.get("n_val"),
        "n_test": run.evaluation.n_frames,
        "seed": summary.get("seed"),
        "md_drift_mev_per_atom_per_ps": md.get("drift_mev_per_atom_per_ps"),
        "md_fluctuation_mev_per_atom": md.get("fluctuation_mev_per_atom"),
        "versions": summary.get("versions"),
        "machine": summary.get("machine"),
        "test_data": run.evaluation_facts.get("data"),
        "units": UNITS,
    }


def accuracy_per_resource(force_mae_mev_per_ang: float | None, train_flops: float | None) -> float | None:
    """(1 / MAE) / FLOPs with the MAE in eV/Å; None if a number is missing or zero."""
    if not force_mae_mev_per_ang or not train_flops:
        return None
    return 1 / (force_mae_mev_per_ang / 1000) / train_flops
