"""PyTorch's settings while a run trains."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from sdas.config import TrainConfig
from sdas_kernels import subnormals


@contextmanager
def torch_settings(settings: TrainConfig) -> Iterator[None]:
    """Threads, seeds and determinism as configured, subnormals as zeros; all but the seeds are put back at the end."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed)  # noqa: NPY002
    random.seed(settings.seed)
    try:
        with subnormals.as_zeros():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
