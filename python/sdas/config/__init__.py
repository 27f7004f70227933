"""The configuration of a run: a YAML file, checked in full before anything starts."""

from sdas.config.active import ActiveConfig
from sdas.config.cross_validation import CrossValidationConfig
from sdas.config.data import DataConfig, SplitConfig
from sdas.config.load import Config, default_config, load_config, load_data_config, parse_config, render_config
from sdas.config.model import ModelConfig
from sdas.config.scaling import ScalingConfig
from sdas.config.train import TrainConfig

__all__ = [
    "ActiveConfig",
    "Config",
    "CrossValidationConfig",
    "DataConfig",
    "ModelConfig",
    "ScalingConfig",
    "SplitConfig",
    "TrainConfig",
    "default_config",
    "load_config",
    "load_data_config",
    "parse_config",
    "render_config",
]
