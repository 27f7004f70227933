"""An evaluation as a table: a row for each file and each kind of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdas.evaluate.evaluation import Evaluation

MOST_ROWS = 40
"""Files, and kinds of frames, that are shown; evaluation.json has all."""
ENERGY = ("energy_mae_mev_per_atom", "energy_rmse_mev_per_atom")
FORCES = ("force_mae_mev_per_ang", "force_rmse_mev_per_ang")
STRESS = ("stress_mae_mev_per_ang3", "stress_rmse_mev_per_ang3")
QUANTITIES = {"energy, meV/atom": ENERGY, "forces, meV/Å": FORCES, "stress, meV/Å³": STRESS}


def rows_of(evaluation: Evaluation) -> dict[str, Mapping[str, Any]]:
    """Title → n_frames and metrics: of files and of kinds where there are several, and of all frames."""
    rows: dict[str, Mapping[str, Any]] = {}
    for title, group in (("{}", evaluation.by_file), ("config_type {}", evaluation.by_config_type)):
        if len(group) > 1:
            rows |= {title.format(name): row for name, row in list(group.items())[:MOST_ROWS]}
        if len(group) > MOST_ROWS:
            rows[f"… and {len(group) - MOST_ROWS} more in evaluation.json"] = {}
    return {**rows, "all": {"n_frames": evaluation.n_frames, **evaluation.metrics}}


def columns_of(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    """Title → keys of MAE and RMSE, of the labels that the frames have."""
    return {title: keys for title, keys in QUANTITIES.items() if evaluation.metrics.get(keys[0]) is not None}


def shown(number: float) -> str:
    """An error with two decimals, a small one with three digits."""
    return f"{number:.2f}" if number >= 1 or number == 0 else f"{number:.3g}"


def sentence(metrics: Mapping[str, float | None]) -> str:
    """Errors of energies per frame, forces and stresses, of those that the frames have."""
    names = (("force", "mev_per_ang", "meV/Å"), ("energy", "mev", "meV"), ("stress", "mev_per_ang3", "meV/Å³"))
    return ", ".join(
        f"{label} MAE {shown(mae)} {unit} (RMSE {shown(rmse)})"
        for label, key, unit in names
        if (mae := metrics.get(f"{label}_mae_{key}")) is not None
        and (rmse := metrics.get(f"{label}_rmse_{key}")) is not None
    )


def table(evaluation: Evaluation) -> str:
    """The table as text; a dash where the frames of a row have no such label."""
    columns, rows = columns_of(evaluation), rows_of(evaluation)
    first = max(map(len, rows))
    lines = [" " * first + "    frames" + "".join(title.rjust(24) for title in columns)]
    lines.append(" " * (first + 10) + ("MAE".rjust(12) + "RMSE".rjust(12)) * len(columns))
    for name, row in rows.items():
        numbers = [row.get(key) for keys in columns.values() for key in keys]
        cells = ["–" if number is None else shown(number) for number in numbers] if row else []
        lines.append(f"{name:{first}}{row.get('n_frames', ''):>10}" + "".join(text.rjust(12) for text in cells))
    return "\n".join(line.rstrip() for line in lines)
