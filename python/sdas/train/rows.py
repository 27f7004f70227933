"""metrics.csv, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from sdas.errors import TrainingError
from sdas.files import errors_naming, write_text
from sdas.run.folder import METRICS

COLUMNS = (
    "step",
    "epoch",
    "wall_s",
    "learning_rate",
    "loss",
    "val_energy_mae_mev",
    "val_energy_mae_mev_per_atom",
    "val_force_mae_mev_per_ang",
    "val_stress_mae_mev_per_ang3",
    "train_flops",
    "atoms_per_s",
)
"""loss: mean over the steps since the row before. Errors of energies are per frame and per atom, those of forces and
stresses per component; a cell is empty where no validation frame has the label. train_flops: since the start of the
run, validation not included. atoms_per_s: trained on, since the row before, without validation."""
FIRST_COLUMNS = tuple(name for name in COLUMNS if not name.endswith(("mev_per_atom", "mev_per_ang3")))
"""Those of the first versions."""


class Rows:
    """Rows of metrics.csv in ``folder``. Rows after ``step`` are dropped: a resumed run writes them again."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.path = folder / METRICS
        rows = [row for row in read_rows(folder) if int(row["step"]) <= step]
        write_text(self.path, _as_csv(rows, header=True))
        self._writer = _tensorboard_writer(folder, step) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, flushed; None is an empty cell."""
        with errors_naming(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(_as_csv([row], header=False))
        if self._writer is not None:
            for name in COLUMNS[1:]:
                if row[name] is not None:
                    self._writer.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        """Flush what TensorBoard holds."""
        if self._writer is not None:
            self._writer.close()


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, as text; none if there is no file. A last row that was cut short is left out.

    Raises :class:`TrainingError` naming the first line that is damaged.
    """
    path = folder / METRICS
    try:
        lines = path.read_bytes().decode().splitlines(keepends=True)
        whole = list(csv.reader(line for line in lines if line.endswith("\n")))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from None
    if lines and not whole:
        raise TrainingError(f"{path}: line 1 is damaged; mend it, or move the file away")
    header = whole[0] if whole else list(COLUMNS)
    for number, row in enumerate(whole, start=1):
        if not (_is_row(row, len(header)) if number > 1 else tuple(header) in (COLUMNS, FIRST_COLUMNS)):
            raise TrainingError(f"{path}: line {number} is damaged; mend it, or move the file away")
    return [dict.fromkeys(COLUMNS, "") | dict(zip(header, row, strict=True)) for row in whole[1:]]


def _is_row(row: list[str], columns: int) -> bool:
    """Whether there is a number, or nothing, for every column."""
    try:
        return len(row) == columns and int(row[0]) >= 0 and all(math.isfinite(float(cell or 0)) for cell in row)
    except ValueError:
        return False


def _as_csv(rows: list[Any], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _tensorboard_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "train.tensorboard is true but the package tensorboard is not installed: pip install tensorboard"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]
