"""The configuration of a training run: a YAML file, checked in full before anything starts.

    config = load_config("ethanol.yaml", ["train.learning_rate=1e-3"])

Units: Å, eV, eV/Å. Every key is explained in ``sdas train --print-config``, which is made from the fields below.
"""

from __future__ import annotations

import difflib
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from sdas.config.reading import ReadingOptions
from sdas.config.section import Section
from sdas.errors import ConfigError
from sdas.files import as_argument

DEEPEST = 20
"""Levels of sections and lists in a configuration; ours has 4."""


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


class ModelConfig(Section):
    """Arguments of sdas_kernels.nn.SDAS."""

    species: list[int] | None = Field(
        default=None,
        description="Atomic numbers the model knows; null takes those of the training frames.",
    )
    channels: int = Field(default=32, ge=1, description="Channels per atom and spherical component.")
    heads: int = Field(default=32, ge=1, description="Attention heads; divides channels.")
    lmax: int = Field(default=2, ge=0, le=8, description="Largest degree of the spherical harmonics.")
    layers: int = Field(default=2, ge=1, description="Message-passing layers.")
    cutoff: float = Field(default=5.0, gt=0, description="Å. Atoms closer than this see each other.")
    n_radial: int = Field(default=8, ge=1, description="Radial functions.")
    key_channels: int = Field(default=4, ge=1, description="Channels of query and key per head.")
    parity: bool = Field(default=True, description="true: E(3), inversion too; false: SE(3).")
    layer: Literal["default", "paper"] = Field(
        default="default", description="default: smooth at the cutoff; paper: as published."
    )
    options: dict[str, Any] = Field(default={}, description="Switches of the default layer, by name.")

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> ModelConfig:
        if self.channels % self.heads:
            raise ValueError(f"heads must divide channels, got heads {self.heads} and channels {self.channels}")
        return self


class TrainConfig(Section):
    """The training recipe. The loss is lambda_energy·mean((ΔE)²)/s² + lambda_forces·mean((ΔF)²)/s², with s the RMS of
    the training forces in eV/Å (E in eV), so both weights are dimensionless."""

    batch_size: int = Field(default=8, ge=1, le=1_000_000, description="Frames per step, over all processes.")
    steps: int | None = Field(
        default=None, ge=1, le=10**12, description="Optimizer steps of the run. Give this or minutes."
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Wall time of the run in minutes. Give this or steps.",
    )
    optimizer: Literal["adam", "adamw"] = Field(default="adam", description="adam or adamw.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay, adamw only.")
    learning_rate: float = Field(default=5e-3, gt=0, description="Largest learning rate.")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        description="cosine: to zero at the end; constant.",
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps over which the rate rises linearly from zero.")
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="Decay per step of the averaged weights, which are validated and saved."
    )
    clip_norm: float = Field(default=10.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    lambda_energy: float = Field(
        default=0.1,
        ge=0,
        description="Weight of the energy error in the loss, dimensionless.",
    )
    lambda_forces: float = Field(default=1.0, ge=0, description="Weight of the force error in the loss, dimensionless.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights and of the order of frames.")
    deterministic: bool = Field(
        default=False, description="Bitwise repeatable, also across a resume; an operation that cannot be is an error."
    )
    validate_every: int = Field(
        default=500,
        ge=1,
        description="Steps between validations; each writes a row of metrics.csv.",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between checkpoints; the last two are kept.")
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads of PyTorch; null leaves its choice."
    )
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, or auto: a GPU if there is one.")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="float32 or float64.")
    tensorboard: bool = Field(default=False, description="Also write TensorBoard files; needs the package tensorboard.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give exactly one of steps and minutes")
        if self.lambda_energy == self.lambda_forces == 0:
            raise ValueError("lambda_energy and lambda_forces are both 0: nothing to learn")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError("weight_decay needs 'optimizer: adamw'")
        return self


class CrossValidationConfig(Section):
    """How ``sdas train --cross-validate`` chooses the weights of the loss."""

    folds: int = Field(default=3, ge=2, description="Parts of the training frames; each validates once.")
    steps: int = Field(default=300, ge=1, description="Steps of each short run.")
    lambda_energy: list[float] = Field(default=[0.01, 0.1, 1.0], min_length=1, description="Values to try.")
    lambda_forces: list[float] = Field(default=[1.0], min_length=1, description="Values to try.")
    criterion: Literal["both", "forces", "energy"] = Field(
        default="both", description="Smallest force MAE, smallest energy MAE, or smallest product of the two."
    )


class Config(Section):
    """Everything that ``sdas train`` needs."""

    run_dir: str = Field(default="runs/sdas", description="Directory of the run; it must not exist, except to resume.")
    data: DataConfig = Field(description="Where the frames come from.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="Arguments of the model.")
    train: TrainConfig = Field(
        description="The recipe. Loss: lambda_energy·mean((ΔE)²)/s² + lambda_forces·mean((ΔF)²)/s², ΔE in eV per "
        "frame, ΔF in eV/Å per component, s the RMS of the training forces in eV/Å."
    )
    cross_validation: CrossValidationConfig = Field(
        default_factory=CrossValidationConfig, description="Used by 'sdas train --cross-validate' only."
    )


def default_config() -> Config:
    """A recipe that works for small molecules, with a placeholder for the data."""
    return Config(data=DataConfig(path="path/to/frames"), train=TrainConfig(steps=12000))


def load_config(
    path: str | os.PathLike[str] | None, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Config:
    """Read and check a YAML file; ``overrides`` are ``section.key=value`` with the value in YAML.

    ``values``, section.key → value, come after those and are taken as they are.
    Paths are made absolute, from the working directory. Raises :class:`ConfigError` with the path of the key at fault
    and, for an unknown key, the nearest valid one.
    """
    content = {} if path is None else _read_yaml(Path(path))
    for override in overrides:
        _apply(content, override)
    for key, value in (values or {}).items():
        _put(content, key, value, key)
    return parse_config(content, "the command line" if path is None else str(path))


def parse_config(content: Any, source: str) -> Config:
    """Check nested dictionaries as they come from YAML; ``source`` is named in errors."""
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(one) for one in error.errors())) from None
    paths = config.data.path
    config.data.path = _absolute(paths) if isinstance(paths, str) else [_absolute(path) for path in paths]
    if config.data.split.indices is not None:
        config.data.split.indices = _absolute(config.data.split.indices)
    return config


def render_config(config: Config) -> str:
    """The configuration as YAML in which every key carries its explanation."""
    return "\n".join(_lines(config, 0)) + "\n"


def _lines(section: Section, indent: int) -> Iterator[str]:
    margin = " " * indent
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section) and indent == 0:
            yield ""
        yield from textwrap.wrap(
            field.description or "", 110, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# "
        )
        if isinstance(value, Section):
            yield f"{margin}{name}:"
            yield from _lines(value, indent + 2)
        else:
            yield f"{margin}{name}: {_yaml(list(value) if isinstance(value, tuple) else value)}"


def _yaml(value: Any) -> str:
    """A value on one line; text with line breaks or the like in double quotes, where YAML escapes them all."""
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    style = None if all(map(str.isprintable, texts)) else '"'
    text = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        _check_size(text, path)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold sections such as 'data:' and 'train:', got {type(content).__name__}")
    return content


def _check_size(text: str, path: Path) -> None:
    """Refuse what a few characters of YAML can make too large: aliases, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}: holds an alias (*name), of which a few unfold to any size; write values out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{path}: nests lists or sections deeper than {DEEPEST}")


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: must read section.key=value")
    try:
        value, end = yaml.safe_load(text), _end_of_value(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    if text[end:].strip():
        quoted = as_argument(f"{key}={json.dumps(text, ensure_ascii=False)}")
        raise ConfigError(f"--set {override}: YAML takes {text[end:].strip()} for a comment; if it is none, {quoted}")
    _put(content, key.strip(), value, f"--set {override}")


def _end_of_value(text: str) -> int:
    """Where the value that is written in YAML ends; what follows is a comment."""
    node = yaml.compose(text)
    return 0 if node is None else node.end_mark.index


def _put(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    *sections, name = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{source}: {section} is not a section")
    content[name] = value


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path} is not a key{_suggestion(error['loc'])}"
    if error["type"] == "missing":
        return f"{path} is missing"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    shown = f", got {given!r}" if given is None or isinstance(given, (str, int, float, bool, list)) else ""
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def _suggestion(location: Sequence[Any]) -> str:
    *sections, name = (str(part) for part in location)
    here = ".".join(sections)
    keys = list(_keys(Config))
    beside = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == here]
    near = difflib.get_close_matches(name, beside, n=1)
    if near:
        return f"; did you mean {'.'.join([*sections, near[0]])}?"
    by_name = {key.rpartition(".")[2]: key for key in keys}
    near = difflib.get_close_matches(name, list(by_name), n=1)
    return f"; did you mean {by_name[near[0]]}?" if near else f"; the keys here are {', '.join(beside)}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
