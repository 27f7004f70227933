"""The section ``cross_validation``: how the weights of the loss are chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sdas.config.section import Section


class CrossValidationConfig(Section):
    """How ``sdas train --cross-validate`` chooses the weights of the loss."""

    folds: int = Field(default=3, ge=2, description="Parts of the training frames; each validates once.")
    steps: int = Field(default=300, ge=1, description="Steps of each short run.")
    lambda_energy: list[float] = Field(default=[0.01, 0.1, 1.0], min_length=1, description="Values to try.")
    lambda_forces: list[float] = Field(default=[1.0], min_length=1, description="Values to try.")
    criterion: Literal["both", "forces", "energy"] = Field(
        default="both", description="Smallest force MAE, smallest energy MAE, or smallest product of the two."
    )
