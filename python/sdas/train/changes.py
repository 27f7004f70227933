"""What was changed in a training run while it went on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
