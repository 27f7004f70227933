"""The section ``cross_validation``: how the weights of the loss are chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sdas.config.section import Section

NotNegative = Annotated[float, Field(ge=0)]


class CrossValidationConfig(Section):
    """How ``sdas train --cross-validate`` chooses the weights of the loss."""

    folds: int = Field(default=3, ge=2, description="Parts of the training frames; each validates once.")
    steps: int = Field(default=300, ge=1, description="Steps of each short run.")
    energy_weight: list[NotNegative] = Field(
        default=[0.1, 1.0, 10.0, 100.0], min_length=1, description="Values to try."
    )
    forces_weight: list[NotNegative] = Field(default=[1.0], min_length=1, description="Values to try.")
    stress_weight: list[NotNegative] = Field(
        default=[1.0], min_length=1, description="Values to try; more than one only where frames have a stress."
    )
    criterion: Literal["all", "forces", "energy", "stress"] = Field(
        default="all",
        description="Smallest MAE of forces, of energies per atom or of stresses; all: smallest product of those that "
        "the frames have.",
    )
