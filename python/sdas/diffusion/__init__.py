"""Diffusion constants from trajectories, with their uncertainty, and the error of a model's."""

from sdas.diffusion.comparison import DiffusionError, diffusion_error
from sdas.diffusion.estimate import Diffusion, diffusion
from sdas.diffusion.finite_size import yeh_hummer
from sdas.diffusion.paths import Paths, nearest_steps, read_paths

__all__ = [
    "Diffusion",
    "DiffusionError",
    "Paths",
    "diffusion",
    "diffusion_error",
    "nearest_steps",
    "read_paths",
    "yeh_hummer",
]
