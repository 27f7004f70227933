"""The section ``data``: where frames lie, how raw files are read, and which frames train."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from sdas.config.reading import ReadingOptions
from sdas.config.section import Section


def _number(given: Any, as_float: ValidatorFunctionWrapHandler) -> int | float:
    """A finite number; a whole one stays whole. A union would be refused once for each of its types."""
    number: float = as_float(given)
    return given if type(given) is int else number


Number = Annotated[float, WrapValidator(_number)]


class SplitConfig(Section):
    """Which frames train, validate and test."""

    method: Literal["random", "composition", "indices"] = Field(
        default="random",
        description="random; composition: no two parts share a chemical formula; indices: read from a file.",
    )
    sizes: tuple[Number, Number, Number] = Field(
        default=(0.9, 0.1, 0.0),
        description="Training, validation and test frames: numbers of frames, or fractions if none is above 1. A part "
        "that has files of its own takes none of these, and its fraction goes to training.",
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


Paths = str | list[str]


class FramesConfig(Section):
    """Where the frames lie."""

    path: Paths = Field(
        description="Frames to train on: a cache made by 'sdas data convert', or files that are converted to one in "
        "the run directory. A part below without files of its own is split off from these. Also called train."
    )
    validation: Paths | None = Field(default=None, description="Files or caches of the validation frames.")
    test: Paths | None = Field(default=None, description="Files or caches of the test frames.")

    @model_validator(mode="before")
    @classmethod
    def _train_is_path(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        given = [content[name] for name in ("path", "train") if content.get(name) is not None]
        if len(given) > 1:
            raise ValueError("path and train are two names of the same key: give one")
        rest = {name: value for name, value in content.items() if name not in ("path", "train")}
        return {**rest, "path": given[0]} if given else rest

    @model_validator(mode="after")
    def _some_files(self) -> FramesConfig:
        for part, paths in self.files().items():
            if not all(paths):
                raise ValueError(f"an empty name among the files of the {part} frames")
        if not self.files()["train"]:
            raise ValueError("path is an empty list: name the files of the training frames")
        return self

    def files(self) -> dict[str, list[str]]:
        """The files of each part, train, validation and test; none for a part that is split off."""
        given = {"train": self.path, "validation": self.validation, "test": self.test}
        return {part: [paths] if isinstance(paths, str) else list(paths or ()) for part, paths in given.items()}


class DataConfig(ReadingOptions, FramesConfig):
    """Where the frames come from, how raw files are read, and which frames train."""

    graph_cache_gib: float = Field(
        default=4.0, gt=0, description="GiB of neighbor graphs kept between epochs; more are built anew."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Which frames train, validate and test.")

    @model_validator(mode="after")
    def _indices_divide_all(self) -> DataConfig:
        if self.split.indices is not None and (self.validation or self.test):
            raise ValueError("indices in split divide the frames of path alone: leave out validation and test")
        return self
