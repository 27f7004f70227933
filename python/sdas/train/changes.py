"""What was changed in a training run while it went on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdas.config import Config
from sdas.config.model import ModelConfig
from sdas.errors import CheckpointError
from sdas.run.folder import CHECKPOINTS
from sdas.train.schedule import Ramp


@dataclass
class Changes:
    """What `use_model`, `use_data`, `learning_rate` and `ramp` made of a run; saved with it.

    model: arguments of the SDAS model in use. unit: that of the loss, eV. learning_rate: the largest one, None
    while it is the configured one. data: the path of the frame cache in use, None if the frames are not a cache.
    data_since: the step since which. energy_unit: that of energies per atom in the loss, eV. energy_reference: what
    is recorded of it. Both are None in a run of an earlier version, where energies had the unit of forces. ramp: a
    factor of the rate, None for none.
    """

    model: dict[str, Any]
    unit: float
    learning_rate: float | None
    data: str | None
    data_since: int = 0
    energy_unit: float | None = None
    energy_reference: dict[str, Any] | None = None
    ramp: Ramp | None = None

    @classmethod
    def saved(cls, content: Mapping[str, Any]) -> Changes:
        """As a checkpoint holds them."""
        ramp = content.get("ramp")
        return cls(**{**content, "ramp": None if ramp is None else Ramp(**ramp)})


def check_beginning(config: Config, document: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a checkpoint of a run with another optimizer, or that began with another model."""
    where = Path(config.run_dir) / CHECKPOINTS
    if "unit" not in document["changes"]:
        raise CheckpointError(
            f"{where}: the checkpoint is of an earlier version, whose loss weighed errors "
            "of the energy per frame; finish the run with that version, or start another"
        )
    model, optimizer = config.model.model_dump(), config.train.optimizer
    now = {f"model.{name}": value for name, value in model.items()} | {"train.optimizer": optimizer}
    # arguments that came to it later; the product was off at first
    with_defaults = ModelConfig.model_validate({"node_product": False} | document["began_as"]).model_dump()
    before = {f"model.{name}": value for name, value in with_defaults.items()}
    before["train.optimizer"] = document.get("optimizer", optimizer)
    for name, value in now.items():
        if before.get(name) != value:
            raise CheckpointError(
                f"{where}: the checkpoint does not fit this run: it began with {name} {before.get(name)}, not {value}"
            )
