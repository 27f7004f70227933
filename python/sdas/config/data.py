"""The section ``data``: where frames lie, how raw files are read, and which frames train."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sdas.config.reading import ReadingOptions
from sdas.config.section import Section


class SplitConfig(Section):
    """Which frames train, validate and test."""

    method: Literal["random", "composition", "indices"] = Field(
        default="random",
        description="random; composition: no two parts share a chemical formula; indices: read from a file.",
    )
    sizes: tuple[int | float, int | float, int | float] = Field(
        default=(0.9, 0.1, 0.0),
        description="Training, validation and test frames: numbers of frames, or fractions if none is above 1.",
    )
    seed: int = Field(default=0, ge=0, lt=2**64, description="Seed of the random order.")
    indices: str | None = Field(
        default=None, description="With method indices: a split of 'sdas data split', or .json, .npz, .csv"
    )

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        if (self.method == "indices") != (self.indices is not None):
            raise ValueError("'method: indices' and a file in 'indices' go together")
        if min(self.sizes) < 0 or self.sizes[0] == 0:
            raise ValueError("sizes must be (train > 0, validation >= 0, test >= 0)")
        whole = all(size == int(size) for size in self.sizes)
        if max(self.sizes) > 1 and not whole:
            raise ValueError("sizes are either three whole numbers of frames or three fractions of at most 1")
        if max(self.sizes) <= 1 and sum(self.sizes) > 1 + 1e-9:
            raise ValueError("fractions must sum to at most 1")
        return self


class FramesConfig(Section):
    """Where the frames lie."""

    path: str | list[str] = Field(
        description="A cache made by 'sdas data convert', or files that are converted to one in the run directory."
    )


class DataConfig(ReadingOptions, FramesConfig):
    """Where the frames come from, how raw files are read, and which frames train."""

    graph_cache_gib: float = Field(
        default=4.0, gt=0, description="GiB of neighbor graphs kept between epochs; more are built anew."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Which frames train, validate and test.")
