"""The section ``scaling``: how ``sdas scale`` spends its FLOPs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sdas.config.section import Section

Axis = Literal["width", "depth", "degree", "heads", "data"]


class ScalingConfig(Section):
    """When a model or its data grow, what grows and by how much."""

    flops: float | None = Field(
        default=None, gt=0, description="Budget of the whole run, trials included; --flops on the command line."
    )
    delta_flops: float | None = Field(
        default=None, gt=0, description="ΔC, FLOPs between two decisions; null: a fortieth of the budget."
    )
    validations: int = Field(
        default=8, ge=2, description="Validations per doubling of the FLOPs, and one per ΔC at least."
    )
    epsilon: float = Field(default=0.5, gt=0, description="Least marginal gain; below it the model or its data grow.")
    epsilon_unit: Literal["relative", "eV/Å/FLOP"] = Field(
        default="relative", description="relative: epsilon is compared with -d log E / d log C; else with -dE/dC."
    )
    target: float = Field(default=0.0, ge=0, description="eV/Å. A validation error that is good enough; 0: none.")
    grow: list[Axis] = Field(
        default=["width", "depth", "degree", "heads", "data"], min_length=1, description="What may grow."
    )
    choose: Literal["trials", "all"] = Field(
        default="trials", description="trials: what gains most in short trials grows; all: everything that may."
    )
    patience: float = Field(
        default=4.0, ge=1, description="Factor of the FLOPs since the last growth, before which nothing is judged."
    )
    trial: float = Field(default=0.5, gt=0, description="Length of a trial in ΔC; its FLOPs count.")
    payback: float = Field(
        default=4.0, ge=0, description="FLOPs left of the budget after trials, at least, as a factor of those so far."
    )
    retry: float = Field(
        default=1.5, ge=1, description="Where no candidate gained, the factor of the FLOPs until new trials."
    )
    worth: float = Field(
        default=0.1, ge=0, le=1, description="Part of epsilon; if no candidate gains and training on less, a run stops."
    )
    k_w: float = Field(default=2.0, gt=1, description="Factor of the channels.")
    k_d: float = Field(default=1.5, gt=1, description="Factor of the layers, rounded up.")
    k_h: int = Field(default=2, ge=2, description="Factor of the heads.")
    k_n: float = Field(default=2.0, gt=1, description="Factor of the training frames.")
    largest_channels: int = Field(default=512, ge=1, description="Channels beyond which nothing gets wider.")
    largest_layers: int = Field(default=12, ge=1, description="Layers beyond which nothing gets deeper.")
    largest_lmax: int = Field(default=4, ge=0, description="The highest degree.")
    reset_optimizer: bool = Field(
        default=False, description="true: the optimizer begins anew after growth; false: it keeps what still fits."
    )
    warmup: float = Field(default=0.1, ge=0, description="ΔC over which the rate rises from zero after growth.")
    cooldown: float = Field(
        default=0.2, ge=0, lt=1, description="Part of the FLOPs, at the end, over which the rate falls to zero."
    )
    start_frames: float = Field(
        default=1.0, gt=0, description="Training frames to start with: a fraction, or a number if above 1."
    )
    pool: str | None = Field(
        default=None, description="A file or cache of more labeled frames, for the data to grow into."
    )
    confidence: float = Field(
        default=0.95, gt=0, lt=1, description="Of the interval by which a law is judged that is not identifiable."
    )

    @model_validator(mode="after")
    def _whole_number_of_frames(self) -> ScalingConfig:
        if self.start_frames > 1 and self.start_frames != int(self.start_frames):
            raise ValueError(f"start_frames is a fraction of at most 1 or a whole number, got {self.start_frames}")
        return self
