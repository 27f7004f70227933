"""The configuration of a training run: a YAML file, checked in full before anything starts.

    config = load_config("ethanol.yaml", ["train.learning_rate=1e-3"])

Units: Å, eV, eV/Å. Every key is explained in ``sdas train --print-config``, which is made from the fields of the
sections, each in a file of its name.
"""

from __future__ import annotations

import difflib
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from sdas.config.active import DROPOUT, MEMBERS, ActiveConfig
from sdas.config.cross_validation import CrossValidationConfig
from sdas.config.data import DataConfig
from sdas.config.model import ModelConfig
from sdas.config.scaling import ScalingConfig
from sdas.config.section import Section, message_of
from sdas.config.train import REFERENCES, TrainConfig
from sdas.errors import ConfigError
from sdas.files import as_argument

DEEPEST = 20
"""Levels of sections and lists in a configuration; ours has 4."""

_ENERGY = (
    "it weighed errors of the energy per frame; energy_weight weighs those per atom. Its default suits all sizes; "
    "frames of N atoms learn as before with N² times the old number (0.1 at 9 atoms: 8.1)"
)
GONE = {
    "train.lambda_energy": _ENERGY,
    "train.lambda_forces": "its name is forces_weight, with the same meaning",
    "cross_validation.lambda_energy": _ENERGY,
    "cross_validation.lambda_forces": "its name is forces_weight, with the same meaning",
}
"""Keys of earlier versions that have another meaning by now, and what to write instead."""


ALTERNATIVES = (
    ("train.steps", "train.minutes"),
    ("train.batch_size", "train.batch_atoms", "train.batch_edges"),
    ("data.path", "data.train"),
)
"""Keys of which one takes the place of the others."""


class Config(Section):
    """Everything that ``sdas train`` needs."""

    run_dir: str = Field(
        default="runs/sdas",
        description="Directory of the run; it must not exist, except to resume. Without this key 'sdas train' takes a "
        "new one in runs/ with the name of the data.",
    )
    data: DataConfig = Field(description="Where the frames come from.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="Arguments of the model.")
    train: TrainConfig = Field(
        default_factory=TrainConfig,
        description="The recipe; what the loss is stands in sdas.train.loss and in the documentation of training.",
    )
    cross_validation: CrossValidationConfig = Field(
        default_factory=CrossValidationConfig, description="Used by 'sdas train --cross-validate' only."
    )
    scaling: ScalingConfig = Field(default_factory=ScalingConfig, description="Used by 'sdas scale' only.")
    active: ActiveConfig = Field(default_factory=ActiveConfig, description="Used by 'sdas active' only.")

    @model_validator(mode="before")
    @classmethod
    def _what_uncertainty_needs(cls, content: Any) -> Any:
        """A shallow ensemble has readouts, and dropout leaves something out, where nothing else is said."""
        active = content.get("active") if isinstance(content, dict) else None
        source = active.get("uncertainty") if isinstance(active, dict) else None
        if source == "shallow":
            return _with_default(content, "model", "members", MEMBERS)
        if source == "dropout":
            return _with_default(content, "train", "dropout", DROPOUT)
        return content

    @model_validator(mode="after")
    def _has_what_active_learning_needs(self) -> Config:
        if self.active.scaling != "none" and (self.scaling.flops is None or self.scaling.pool is not None):
            raise ValueError("active.scaling needs scaling.flops, the budget of each member, and no scaling.pool")
        if self.active.uncertainty == "shallow" and self.model.members < 2:
            raise ValueError(f"model.members must be at least 2 for a shallow ensemble, got {self.model.members}")
        if self.active.uncertainty == "dropout" and not self.train.dropout:
            raise ValueError("train.dropout must be more than 0 for the uncertainty dropout")
        return self


def default_config() -> Config:
    """A recipe that works for small molecules, with a placeholder for the data."""
    return Config(data=DataConfig(path="path/to/frames"))


def load_config(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Read and check a YAML file, or defaults; ``overrides`` are ``section.key=value`` with the value in YAML.

    ``values``, section.key → value, come after those and are taken as they are. What is given for one of some
    :data:`ALTERNATIVES` takes the place of all in the file. ``defaults`` likewise, where neither such key is given.
    Paths are made absolute, from the working directory.
    Raises :class:`ConfigError` with the path of the key at fault and, for an unknown key, the nearest valid one.
    """
    content = {} if path is None else _read_yaml(Path(path))
    _drop_alternatives(content, {*map(key_of, overrides), *(values or ())})
    for override in overrides:
        _apply(content, override)
    for key, value in (values or {}).items():
        _put(content, key, value, key)
    for key, value in (defaults or {}).items():
        if not any(_is_given(content, each) for pair in [(key,), *ALTERNATIVES] if key in pair for each in pair):
            _put(content, key, value, key)
    return parse_config(content, "the command line" if path is None else str(path))


def load_data_config(path: str | os.PathLike[str]) -> DataConfig:
    """The section ``data`` of the configuration of a run, which may be of an earlier version in its other sections."""
    return parse_config({"data": _read_yaml(Path(path)).get("data")}, str(path)).data


def parse_config(content: Any, source: str) -> Config:
    """Check nested dictionaries as they come from YAML; ``source`` is named in errors."""
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(one) for one in error.errors())) from None
    data, split = config.data, config.data.split
    named = ((data, "path"), (data, "validation"), (data, "test"), (split, "indices"))
    for section, name in (*named, (config.scaling, "pool"), (config.active, "pool")):
        given = getattr(section, name)
        if given is not None:
            setattr(section, name, [_absolute(path) for path in given] if isinstance(given, list) else _absolute(given))
    reference = config.train.energy_reference
    if isinstance(reference, str) and reference not in REFERENCES:
        config.train.energy_reference = _absolute(reference)
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


def key_of(override: str) -> str:
    """The key that an override, ``section.key=value``, sets."""
    return override.partition("=")[0].strip()


def _drop_alternatives(content: dict[str, Any], given: set[str]) -> None:
    """Take out of a file what the ``given`` keys take the place of."""
    for keys in ALTERNATIVES:
        for key in keys if given.intersection(keys) else ():
            section, _, name = key.partition(".")
            if isinstance(content.get(section), dict):
                content[section].pop(name, None)


def _is_given(content: Any, key: str) -> bool:
    section, _, name = key.partition(".")
    return isinstance(content.get(section), dict) and content[section].get(name) is not None


def _put(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    *sections, name = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{source}: {section} is not a section")
    content[name] = value


def _with_default(content: dict[str, Any], section: str, name: str, value: Any) -> dict[str, Any]:
    given = content.get(section) or {}
    return {**content, section: {name: value, **given}} if isinstance(given, dict) else content


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if path in GONE:
        return f"{path} is gone: {GONE[path]}"
    if error["type"] == "extra_forbidden":
        return f"{path} is not a key{_suggestion(error['loc'])}"
    if error["type"] == "missing":
        return f"{path} is missing"
    given = error.get("input")
    shown = f", got {given!r}" if given is None or isinstance(given, (str, int, float, bool, list)) else ""
    return f"{path}: {message_of(error)}{shown}" if path else message_of(error)


ELSEWHERE = 0.8
"""How alike a key of another section has to be, of 1, so that it may be meant."""


def _suggestion(location: Sequence[Any]) -> str:
    *sections, name = (str(part) for part in location)
    here = ".".join(sections)
    keys = list(_keys(Config))
    beside = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == here]
    near = difflib.get_close_matches(name, beside, n=1)
    if near:
        return f"; did you mean {'.'.join([*sections, near[0]])}?"
    by_name = {key.rpartition(".")[2]: key for key in keys}
    near = difflib.get_close_matches(name, list(by_name), n=1, cutoff=ELSEWHERE)
    return f"; did you mean {by_name[near[0]]}?" if near else f"; the keys here are {', '.join(beside)}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
