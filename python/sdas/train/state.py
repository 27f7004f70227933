"""Everything a run needs to go on where it stopped, to and from a :class:`sdas.run.checkpoint.TrainingState`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sdas.errors import CheckpointError
from sdas.run.checkpoint import TrainingState
from sdas.train.flop_model import FlopModels
from sdas_kernels.flops import FlopCounter

ERRORS = ("force_mae_mev_per_ang", "energy_mae_mev_per_atom", "energy_mae_mev", "stress_mae_mev_per_ang3")
"""Of the validation; one is there if a frame has the label."""
SHOWN = {"force_mae_mev_per_ang": "F meV/Å", "energy_mae_mev_per_atom": "E meV/atom"}


def describe_errors(errors: Mapping[str, float]) -> str:
    """Validation errors in words, those that are there."""
    found = []
    if "force_mae_mev_per_ang" in errors:
        found.append(f"forces {errors['force_mae_mev_per_ang']:.2f} meV/Å")
    if "energy_mae_mev" in errors:
        per_atom = errors["energy_mae_mev_per_atom"]
        found.append(f"energies {errors['energy_mae_mev']:.2f} meV ({per_atom:.3g} meV/atom)")
    if "stress_mae_mev_per_ang3" in errors:
        found.append(f"stress {errors['stress_mae_mev_per_ang3']:.3g} meV/Å³")
    return ", ".join(found)


@dataclass
class Progress:
    """Counters of a run.

    step: of the next one. wall_s: seconds so far. flops: of all processes; where they are several, as of the last row
    or checkpoint. learning_rate: of the last step. last and best: the validation errors of the last row, and of the row
    with the smallest error of the first of ERRORS that the frames have.
    flops_unknown and flops_estimated: operators without a FLOP rule, and those counted as their reference (see
    :class:`sdas_kernels.flops.FlopCounter`). The rest sums up the steps since the last row of metrics.csv.
    """

    step: int = 0
    wall_s: float = 0.0
    flops: int = 0
    learning_rate: float = 0.0
    last: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    flops_unknown: list[str] = field(default_factory=list)
    flops_estimated: list[str] = field(default_factory=list)
    loss_sum: float = 0.0
    steps_since_row: int = 0
    atoms_since_row: int = 0
    seconds_since_row: float = 0.0

    def count_step(self, loss: float, atoms: int, seconds: float) -> None:
        """Take account of a step over that many atoms of all processes."""
        self.step += 1
        self.loss_sum += loss
        self.steps_since_row += 1
        self.atoms_since_row += atoms
        self.seconds_since_row += seconds

    def note(self, counter: FlopCounter) -> None:
        """Remember which operators a counter could not count exactly."""
        self.flops_unknown = sorted({*self.flops_unknown, *counter.unknown})
        self.flops_estimated = sorted({*self.flops_estimated, *counter.estimated})

    def end_row(self, epoch: float, errors: dict[str, float] | None) -> dict[str, Any]:
        """The row of metrics.csv that ends here, with the validation ``errors``; the next one starts."""
        row = {
            "step": self.step,
            "epoch": epoch,
            "wall_s": self.wall_s,
            "learning_rate": self.learning_rate,
            "loss": self.loss_sum / self.steps_since_row,
            **{f"val_{name}": (errors or {}).get(name) for name in ERRORS},
            "train_flops": self.flops,
            "atoms_per_s": self.atoms_since_row / self.seconds_since_row,
        }
        if errors:
            self.last = {"step": self.step, **errors}
            name = next(name for name in ERRORS if name in errors)
            if errors[name] <= self.best.get(name, math.inf):
                self.best = self.last
        self.loss_sum, self.steps_since_row, self.atoms_since_row, self.seconds_since_row = 0.0, 0, 0, 0.0
        return row

    def shown(self) -> dict[str, str]:
        """What the progress bar says: loss and speed since the last row, the errors of that row, and FLOPs."""
        facts = {}
        if self.steps_since_row:
            facts["loss"] = f"{self.loss_sum / self.steps_since_row:.3g}"
            facts["atoms/s"] = f"{self.atoms_since_row / self.seconds_since_row:.0f}"
        for name, text in SHOWN.items():
            if name in self.last:
                facts[f"val {text}"] = f"{self.last[name]:.3g}"
        return facts | {"TFLOP": f"{self.flops / 1e12:.3g}"}


def capture(
    progress: Progress,
    flop_models: FlopModels,
    model: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> TrainingState:
    """The state of a run, random number generators included."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["random.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"random.cuda.{k}": state for k, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    document = {
        "progress": asdict(progress),
        "flop_models": flop_models.state_dict(),
        "random_python": list(_plain(random.getstate())),
        "random_numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
    }
    return TrainingState(progress.step, {name: tensor.clone() for name, tensor in tensors.items()}, document)


def restore(
    state: TrainingState,
    flop_models: FlopModels,
    model: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Put everything back; raises :class:`CheckpointError` for a state of another model or optimizer."""
    try:
        model.load_state_dict(_below(state.tensors, "model."))
        averaged.load_state_dict(_below(state.tensors, "averaged."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _below(state.tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        flop_models.load_state_dict(state.document["flop_models"])
        progress = Progress(**state.document["progress"])
        torch.set_rng_state(state.tensors["random.torch"])
        for name, tensor in _below(state.tensors, "random.cuda.").items():
            if int(name) < torch.cuda.device_count():
                torch.cuda.set_rng_state(tensor, int(name))
        version, internal, gauss = state.document["random_python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = state.document["random_numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint of step {state.step} does not fit this run: {' '.join(str(error).split())}"
        ) from None
    return progress


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
