"""Whether Triton kernels can run here, asked without importing Triton until a GPU is there."""

from __future__ import annotations

from functools import cache

import torch

from sdas_kernels.dispatch import Backend

OLDEST = (3, 6)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)  # sums of bfloat16 are kept in float32
# One warp per program: no barriers. A multiply-add is one instruction, whatever Triton's default for that is.
LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}


def backend(op: str, module: str, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Backend:
    """An operator's implementation by the Triton kernels of a module."""
    return Backend(op, "triton", module, ("cuda",), dtypes, available)


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
