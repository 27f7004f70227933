"""Whether Triton kernels can run here, asked without importing Triton until a GPU is there."""

from __future__ import annotations

from functools import cache

import torch

OLDEST = (3, 6)


@cache
def available() -> tuple[bool, str]:
    """Whether Triton kernels can run in this process, with Triton's version or the reason why not."""
    if not torch.cuda.is_available():
        return False, "no CUDA device"
    try:
        import triton
    except ImportError:
        return False, "triton is not installed"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        return False, f"triton {triton.__version__} is installed, {'.'.join(map(str, OLDEST))} or newer is needed"
    return True, f"triton {triton.__version__}"
