"""The numbers of a run: what report.json holds."""

from __future__ import annotations

from typing import Any

from sdas.report.sections import RunContents

UNITS = {
    "notes": "what is left out since it is of another model or other data, and what is not known; empty if all agrees",
    "model_fingerprint": "SHA-256 of the model that the numbers are about; None where the run has none",
    "data_fingerprints": "SHA-256 of the files of the test frames",
    "energy_mae_mev": "mean absolute error of the energy of a test frame, meV",
    "energy_rmse_mev": "root mean square error of the energy of a test frame, meV",
    "force_mae_mev_per_ang": "mean absolute error of a force component on the test frames, meV/Å",
    "force_rmse_mev_per_ang": "root mean square error of a force component on the test frames, meV/Å",
    "stress_mae_mev_per_ang3": "mean absolute error of a stress component on the test frames that have one, meV/Å³",
    "stress_rmse_mev_per_ang3": "root mean square error of a stress component on those frames, meV/Å³",
    "by_file": "the same errors, those of energies per atom too, of the test frames of each file",
    "by_config_type": "the same of the test frames of each kind, as their config_type says",
    "train_flops": "floating-point operations of the whole training: forward, backward, double backward, optimizer",
    "apr": "accuracy per resource, (1 / force MAE) / train_flops with the force MAE in eV/Å: unit Å / (eV FLOP)",
    "wall_s": "wall time of the training, s",
    "n_train": "training frames",
    "n_val": "validation frames",
    "n_test": "test frames",
    "md_drift_mev_per_atom_per_ps": "slope of the total energy per atom over time in a run at constant energy",
    "md_fluctuation_mev_per_atom": "root mean square of the total energy per atom about that slope",
    "replicas": "how many replicas were moved at once",
    "replicas_ended": "how many of them left the region where the model means anything",
    "replicas_stable_fs": "how long a replica ran before it ended, on average, fs; the whole run where it did not",
    "diffusion_ang2_per_ps": "self-diffusion constant of each element in the box that was simulated, Å²/ps",
    "sampling_error_kt": "mean of |F − F of the reference| over the bins of the variables, k_B T",
}
"""What each number of report.json is, with its unit; written into the file as well."""


def report_numbers(run: RunContents) -> dict[str, Any]:
    """Everything about the run that is a number or a short fact; None where it is not known."""
    evaluation, training = run.test.evaluation, run.training.summary
    md = run.dynamics.summary if run.dynamics else {}
    replicas = run.replicas or {}
    metrics = evaluation.metrics if evaluation else {}
    return {
        "notes": run.notes,
        "model_fingerprint": run.training.model_fingerprint,
        "data_fingerprints": run.test.facts.get("data_fingerprints"),
        "energy_mae_mev": metrics.get("energy_mae_mev"),
        "energy_rmse_mev": metrics.get("energy_rmse_mev"),
        "force_mae_mev_per_ang": metrics.get("force_mae_mev_per_ang"),
        "force_rmse_mev_per_ang": metrics.get("force_rmse_mev_per_ang"),
        "stress_mae_mev_per_ang3": metrics.get("stress_mae_mev_per_ang3"),
        "stress_rmse_mev_per_ang3": metrics.get("stress_rmse_mev_per_ang3"),
        "by_file": evaluation.by_file if evaluation else {},
        "by_config_type": evaluation.by_config_type if evaluation else {},
        "train_flops": training.get("train_flops"),
        "apr": accuracy_per_resource(metrics.get("force_mae_mev_per_ang"), training.get("train_flops")),
        "wall_s": training.get("wall_s"),
        "steps": training.get("steps"),
        "n_train": training.get("n_train"),
        "n_val": training.get("n_val"),
        "n_test": evaluation.n_frames if evaluation else None,
        "seed": training.get("seed"),
        "md_drift_mev_per_atom_per_ps": md.get("drift_mev_per_atom_per_ps"),
        "md_fluctuation_mev_per_atom": md.get("fluctuation_mev_per_atom"),
        "replicas": len(replicas["replicas"]) if replicas else None,
        "replicas_ended": replicas.get("ended"),
        "replicas_stable_fs": replicas.get("stable_fs"),
        "diffusion_ang2_per_ps": {
            each["element"]: each["diffusion_ang2_per_ps"] for each in (run.diffusion or {}).get("constants", [])
        },
        "sampling_error_kt": ((run.free_energy or {}).get("sampling_error") or {}).get("mean_kt"),
        "versions": training.get("versions"),
        "machine": training.get("machine"),
        "test_data": run.test.facts.get("data"),
        "units": UNITS,
    }


def accuracy_per_resource(force_mae_mev_per_ang: float | None, train_flops: float | None) -> float | None:
    """(1 / MAE) / FLOPs with the MAE in eV/Å; None if a number is missing or zero."""
    if not force_mae_mev_per_ang or not train_flops:
        return None
    return 1 / (force_mae_mev_per_ang / 1000) / train_flops
