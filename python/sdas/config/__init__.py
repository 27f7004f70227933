"""The configuration of a run: a YAML file, checked in full before anything starts."""

from sdas.config.load import (
    Config,
    CrossValidationConfig,
    DataConfig,
    ModelConfig,
    SplitConfig,
    TrainConfig,
    default_config,
    load_config,
    parse_config,
    render_config,
)

__all__ = [
    "Config",
    "CrossValidationConfig",
    "DataConfig",
    "ModelConfig",
    "SplitConfig",
    "TrainConfig",
    "default_config",
    "load_config",
    "parse_config",
    "render_config",
]
